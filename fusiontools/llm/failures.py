"""Call an endpoint's failure by its right name, whatever words, codes and HTTP status the provider chose for it; and
find out how long it asks us to wait.

One table says it all: what a provider calls a failure in a field (`error.code`, `type`, `status`) counts before its
words, and these before the HTTP status, which gateways and providers choose freely. A new wording is a new line there.

Source: the providers' API references and public reports of what their endpoints really answer.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fusiontools.errors import FAILURE_CODES, CallCode, CallFailed
from fusiontools.record import jsonl

_BY_STATUS: dict[int, Any] = {status: code for code, row in FAILURE_CODES.items() for status in row.statuses}
_RETRYABLE = frozenset({408, 409, 425, 429})
_SHOWN_CHARS = 300
#: How much of an error is searched for words: a page of source in front of them must not hide them.
_READ_CHARS = 20_000
#: Where providers put a failure's name.
_NAMED_IN = ("code", "type", "status", "error_code", "reason")
_SAID_IN = ("message", "detail", "error_msg", "msg", "status_msg", "errors")


class Wording(NamedTuple):
    """How providers say one kind of failure.

    Args:
        code: our name for it.
        names: theirs, in lower case, as they stand in a field of the error.
        words: regular expressions over the message in lower case, for where no field says it.
        not_at: HTTP statuses at which the words mean something else.
    """

    code: CallCode
    names: tuple[str, ...]
    words: tuple[str, ...]
    not_at: tuple[int, ...] = ()


#: The first row that fits counts.
WORDINGS = (
    Wording(
        "payment",
        (
            *("insufficient_quota", "billing_not_active", "billing_hard_limit_reached", "billing_error"),
            *("insufficient_balance", "insufficient_credits", "insufficient_funds", "insufficient_user_quota"),
            *("exceeded_current_quota_error", "arrearage", "arrearsdenied", "accountoverdueerror", "creditserror"),
            *("payment_required", "1113"),
        ),
        (
            r"credit balance is too low",
            r"insufficient (account |user )?(balance|credit|fund|quota)",
            r"(account )?balance (is )?(insufficient|not enough)",
            r"account is in good standing",
            r"(requires more|out of|used all available|doesn't have any|never purchased) credits",
            r"(spending|billing hard) limit|specified (api )?usage limits|monthly quota|key limit exceeded",
            r"余额不足|欠费",
        ),
    ),
    Wording(
        "rate_limited",
        (
            *("rate_limit_exceeded", "rate_limit_error", "rate_limited", "rate_limit_reached_error"),
            *("ratelimitexceeded", "requests_rate_limit", "too_many_requests", "throttlingexception"),
            # Gemini's name for a free account's quota, too, whose words are those of OpenAI's empty account.
            *(
                "capacity_exceeded",
                "throttling",
                "throttling.ratequota",
                "throttling.allocationquota",
                "resource_exhausted",
            ),
        ),
        (
            r"too many (tokens|requests), please wait",
            r"(tokens|requests) per (second|min|minute|hour|day)\b|\(tpm\)|\(rpm\)",
            r"rate limit (reached|exceeded)",
        ),
    ),
    Wording(
        "refused",
        (
            *("content_filter", "content_filtered", "content_policy_violation", "responsibleaipolicyviolation"),
            *("data_inspection_failed", "datainspectionfailed", "moderation_blocked", "invalid_prompt"),
            *("sensitivecontentdetected", "inputtextsensitivecontentdetected", "outputtextsensitivecontentdetected"),
            *("prohibited_content", "safety_violation", "1301", "base_resp_1026", "base_resp_1027"),
        ),
        (
            r"content management policy|content filter|content (usage )?polic|usage (policy|policies|guidelines)",
            r"inappropriate content|sensitive (content|information)|prohibited[ _]content",
            r"content exists risk|considered high risk",
            r"\b(prompt|input|content|messages?|request) (was|were|has been|have been) (flagged|blocked|filtered)",
            r"safety system|for safety reasons|blocked by (our )?(safety|moderation)",
            r"new_sensitive|不安全或敏感",
        ),
    ),
    Wording(
        "context_length",
        (
            *("context_length_exceeded", "context_window_exceeded", "exceed_context_size_error"),
            *("model_context_window_exceeded", "prompt_too_long", "input_too_long", "max_tokens_exceeded", "1261"),
        ),
        (
            r"context[ _-](length|size|limit|window)",
            r"max_(prompt_tokens|seq_?len|model_len)|maximum (model|sequence) length",
            r"(prompt|input|conversation|request) (is|are) too (long|large for)|too many (input |prompt )?tokens",
            r"maximum (prompt|input) length|prompt exceeds max length",
            r"input (tokens?|length)( count)?\b.{0,40}\bexceed",
            r"number of (input |prompt )?tokens\b.{0,40}\bexceed|prompt token count\b.{0,40}\bexceed",
            r"reduce the (length|number|size) of (the |your )?(messages|prompt|input|tokens)",
            r"range of input length should be",
            r"sum of prompt length\b.{0,80}\bexceed",
            r"model token limit|token limit exceeded|tokens to keep from the initial prompt",
            r"must have less than \d+ input tokens|`inputs` tokens \+ `max_new_tokens`",
            r"'messages\[\d+\]\.content.{0,20}string too long",
        ),
        not_at=(401, 402, 403, 429),
    ),
    Wording(
        "not_found",
        (
            "model_not_found",
            "modelnotfound",
            "model_not_exist",
            "invalid_model",
            "model_decommissioned",
            "1211",
            "model_not_available",
            "model_not_supported",
        ),
        (
            r"models?\W{0,3}\S{1,80}\W{1,3}((is )?not found|(does not|doesn't|not) exist|has been decommissioned)",
            r"model not exist|no such model|unknown model|模型不存在",
            r"requested model is not (supported|available)|\bmodel \S{1,80} is not available",
            r"not a valid model|invalid model( name| id| identifier|:|$)|model identifier is invalid",
        ),
        not_at=(401, 402, 429, 500, 501, 502, 503, 504),
    ),
    Wording(
        "auth",
        ("invalid_api_key", "authentication_error", "api_key_invalid", "unauthenticated"),
        (r"(incorrect|invalid) api[ -]?key|api[ -]?key (is )?(not valid|invalid|missing)",),
    ),
)
#: Names that say no more than a status does: an empty account is a "rate limit" with some providers.
_CATEGORIES = frozenset(
    {"rate_limit_error", "rate_limited", "too_many_requests", "resource_exhausted", "authentication_error"}
)
_PATTERNS = tuple(re.compile("|".join(row.words)) for row in WORDINGS)


#: MiniMax answers 200 and says in `base_resp` that it failed: the HTTP status that each of its numbers means.
_BASE_RESP = {
    **dict.fromkeys((1002, 1039, 1041, 2045, 2056), 429),
    **dict.fromkeys((1004, 2049), 401),
    1008: 402,
    **dict.fromkeys((1026, 1027, 1042, 2013, 2061), 400),
}


def find_base_failure(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the failure of which MiniMax's `base_resp` speaks, as an error object; None where it speaks of none."""
    base = event.get("base_resp")
    number = base.get("status_code") if isinstance(base, dict) else None
    if not isinstance(base, dict) or not isinstance(number, int) or number == 0:
        return None
    said = base.get("status_msg") or f"status_code {number}"
    return {"code": _BASE_RESP.get(number, 500), "type": f"base_resp_{number}", "message": said}


def read_failure(status: int, body: bytes, headers: Mapping[str, str]) -> CallFailed:
    """Read an error response; the endpoint's own words are kept."""
    try:
        data = jsonl.loads(body)
    except ValueError:
        data = excerpt(body)
    return name_failure(status, data, headers)


def name_failure(status: int, data: Any, headers: Mapping[str, str]) -> CallFailed:
    """Return the failure of which an endpoint speaks, in an error response or in a 200.

    Args:
        data: the error, or what holds it under `error`; anything at all may stand there.
    """
    error = _error_in(data)
    said = _words_of(error)
    message = said[:_SHOWN_CHARS]
    if status < 400:
        moved = headers.get("location", "an address it does not say")
        message = f"moved to {moved}: {message}"
    by_status: CallCode = _BY_STATUS.get(status) or ("upstream" if status >= 500 else "bad_request")
    named = _code_named(status, set(_names_in(data)), said[:_READ_CHARS].lower()) if status >= 400 else None
    param = error.get("param") if isinstance(error, dict) else None
    # Who reads the words alone must see it too where the status does not say what the endpoint means.
    place = f"HTTP {status}" if named in (None, by_status) else f"HTTP {status} ({named})"
    return CallFailed(
        named or by_status,
        f"{place}: {message}",
        status=status,
        retryable=_may_pass(status, named, said) and headers.get("x-should-retry") != "false",
        retry_after_s=wait_asked_for(headers),
        param=param if isinstance(param, str) else None,
    )


def code_in_words(said: str) -> CallCode | None:
    """Return what a failure is called by its words alone, or None where they do not say it."""
    return _code_named(0, set(), said[:_READ_CHARS].lower())


def excerpt(body: bytes) -> str:
    """Return the start of a body for a person: the text of a page, not its tags."""
    text = body[:4000].decode("utf-8", "replace")
    if "<" in text:
        text = re.sub(r"<(script|style)\b.*?(</\1>|$)|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    return " ".join(text.split())[:_SHOWN_CHARS] or "an empty body"


def _code_named(status: int, names: set[str], said: str) -> CallCode | None:
    """Return what the endpoint itself calls its failure: by a name of its own, in words, or by a mere category."""
    for row in WORDINGS:
        if not names.isdisjoint(set(row.names) - _CATEGORIES):
            return row.code
    for row, pattern in zip(WORDINGS, _PATTERNS, strict=True):
        if status not in row.not_at and pattern.search(said):
            return row.code
    return next((row.code for row in WORDINGS if not names.isdisjoint(row.names)), None)


def _may_pass(status: int, named: CallCode | None, said: str) -> bool:
    """Return whether the same request may succeed a little later."""
    if named == "rate_limited":
        # One request that is larger than what a minute allows never fits into one.
        return "request too large" not in said.lower()
    return named is None and (status in _RETRYABLE or status >= 500)


def _error_in(data: Any) -> Any:
    """Return the error itself: under `error`, alone in a list, or what came."""
    if isinstance(data, list) and data and isinstance(data[0], dict):
        data = data[0]
    if not isinstance(data, dict):
        return data
    return data.get("error") or data.get("base_resp") or data


def _words_of(error: Any) -> str:
    """Return what an error says, the provider's own words behind a gateway's included."""
    if not isinstance(error, dict):
        return _text(error)
    message = next((error[name] for name in _SAID_IN if error.get(name)), error)
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    return f"{_text(message)} ({_text(raw)})" if raw else _text(message)


def _text(value: Any) -> str:
    try:
        return str(value)
    except RecursionError:
        return "an error that is nested too deeply to be shown"


def _names_in(data: Any) -> Iterator[str]:
    """Yield the names that an error, its cause and what holds it have for the failure, in lower case."""
    holders = [data, error := _error_in(data)]
    if isinstance(error, dict):
        metadata = error.get("metadata")
        raw = metadata.get("raw") if isinstance(metadata, dict) else None
        try:
            behind = jsonl.loads(raw) if isinstance(raw, str) else raw
        except ValueError:
            behind = None
        details = error.get("details")
        holders += [error.get("innererror"), behind, _error_in(behind)]
        holders += details[:8] if isinstance(details, list) else []
    for holder in holders:
        if isinstance(holder, dict):
            said = (holder.get(name) for name in _NAMED_IN)
            yield from (str(name).lower() for name in said if isinstance(name, str | int))


# --- How long to wait ---

#: No endpoint means a longer wait than this.
_LONGEST_WAIT_S = 365 * 86_400.0
_REMAINING = re.compile(r"(?:x-|anthropic-)?ratelimit-(?:(?P<before>[a-z-]+)-)?remaining(?:-(?P<behind>[a-z-]+))?$")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_UNIT_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
#: A number above it counts from 1970 and not from now: in seconds, above the second one in milliseconds.
_EPOCH_S, _EPOCH_MS = 1e9, 1e12


def wait_asked_for(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the endpoint wants to be asked again, or None where its headers do not say.

    `Retry-After` counts first, in seconds or as a date. Else the `x-ratelimit-…` of whatever is used up: OpenAI and
    Groq say durations (`6m0s`, `120ms`), Anthropic a time, OpenRouter and others seconds or milliseconds since 1970. A
    wait that nobody can mean is none.
    """
    try:
        said = _retry_after_s(headers)
        return said if said is not None else _sane(max(_resets_s(headers), default=math.nan))
    except (ArithmeticError, LookupError, TypeError, ValueError, OSError):
        return None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    if (ms := headers.get("retry-after-ms")) and ms.replace(".", "", 1).isdecimal():
        return _sane(float(ms) / 1000)
    said = headers.get("retry-after")
    if not said:
        return None
    if said.replace(".", "", 1).isdecimal():
        return _sane(float(said))
    from email.utils import parsedate_to_datetime

    return _sane(max(0.0, parsedate_to_datetime(said).timestamp() - time.time()))


def _resets_s(headers: Mapping[str, str]) -> list[float]:
    """Return when each limit of which nothing remains begins anew, in seconds from now."""
    found = []
    for name, remaining in headers.items():
        match = _REMAINING.match(name.lower())
        if match is None or not remaining.strip().isdecimal() or int(remaining) > 0:
            continue
        reset = headers.get(name.lower().replace("remaining", "reset"))
        if reset is not None and (wait_s := _until(reset.strip())) is not None:
            found.append(wait_s)
    return found


def _until(reset: str) -> float | None:
    if reset.replace(".", "", 1).isdecimal():
        number = float(reset)
        if number < _EPOCH_S:
            return number
        return max(0.0, (number / 1000 if number > _EPOCH_MS else number) - time.time())
    parts = _DURATION.findall(reset)
    if parts and "".join(number + unit for number, unit in parts) == reset:
        return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    from datetime import datetime

    return max(0.0, datetime.fromisoformat(reset).timestamp() - time.time())


def _sane(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and seconds <= _LONGEST_WAIT_S else None
