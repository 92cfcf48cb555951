"""Read what a program printed: its answer, or how it failed, which many programs say in the place of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fusiontools.errors import CallCode, CallFailed
from fusiontools.llm.failures import code_in_words, name_failure
from fusiontools.record import jsonl

if TYPE_CHECKING:
    from fusiontools.config.models import CommandOutput
    from fusiontools.record.types import Usage

#: A longer text is an answer, whatever it begins with.
_PROSE_CHARS = 400
_SHOWN_CHARS = 300
#: What programs print in the place of an answer, by how it begins.
_PROSE = re.compile(
    r"\W*(?:(?:claude (?:ai |code )?)?(?:session|usage|weekly|hourly|\d+-hour|opus) limit (?:reached|exceeded)"
    r"|you(?:'|’)ve (?:hit|reached) your .{0,40}limit"
    r"|invalid api key|not logged in|please run /login|oauth token (?:has expired|revoked)"
    r"|credit balance is too low|api error:? \(?(?:\d{3}|request|connection)|execution error$"
    r"|prompt is too long|error: reached max turns)",
    re.IGNORECASE,
)
#: Their words for what an endpoint has other words for; the first that fits counts.
_SIGNS: tuple[tuple[CallCode, str], ...] = (
    ("rate_limited", r"(hit|reached) your .{0,40}limit|limit (reached|exceeded)|too many requests|\b429\b|overloaded"),
    ("auth", r"/login\b|not logged in|log ?in (again|first|to)|oauth token|codex login|invalid api key|\b401\b"),
    ("auth", r"no (api )?key (found|set)|authentication|unauthorized|needs? a key"),
    ("not_found", r"issue with the selected model|unknown model|model .{0,80}(not found|does not exist)"),
)
_STEP = re.compile(r"([^.\[\]]+)|\[(-?\d{1,9})\]")
_EPOCH = re.compile(r"\|(\d{10})\b")
_SPAN = re.compile(
    r"(?:again|resets?|retry|wait)(?: in| after)? ((?:\d+(?:\.\d+)? ?(?:d|h|m|s)[a-z]*[ ,]*(?:and )?)+)", re.IGNORECASE
)
_PART = re.compile(r"(\d+(?:\.\d+)?) ?([dhms])", re.IGNORECASE)
_UNIT_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_CLOCK = re.compile(
    r"(?:again|resets?)(?: at| on)? (?:(?P<month>[A-Z][a-z]{2})[a-z]* (?P<day>\d{1,2})(?:st|nd|rd|th)?"
    r"(?:,? (?P<year>\d{4}))?,? (?:at )?)?"
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))? ?(?P<half>[ap]m)?(?: \((?P<zone>[\w/+-]+)\))?",
    re.IGNORECASE,
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


class ProgramAnswer(Struct):
    """What a program printed.

    Args:
        text: its answer; None where there is none.
        failed: why it failed, where it says so.
        said: what else it says that may be the reason.
        status: the HTTP status of its own endpoint, where it tells.
        cut: whether the answer was cut off at its longest.
        found: the object that holds the answer.
    """

    text: str | None = None
    failed: str | None = None
    said: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    status: int | None = None
    cut: bool = False
    found: Mapping[str, Any] = {}


def read_text(printed: str) -> ProgramAnswer:
    """Take all that was printed for the answer."""
    return ProgramAnswer(text=printed.strip())


def read_paths(output: CommandOutput, printed: str) -> ProgramAnswer:
    """Find the answer, and what else a recipe names, in the last object that has the wanted fields."""
    fitting = [
        each for each in objects_in(printed) if all(each.get(name) == value for name, value in output.where.items())
    ]
    if not fitting:
        return ProgramAnswer(said=prose_in(printed))
    found = fitting[-1]
    text = _at(found, output.text)
    answer = ProgramAnswer(text=text if isinstance(text, str) else None, found=found)
    if text is not None and not isinstance(text, str):
        answer.text = jsonl.dumps(text).decode()
    if failed := _at(found, output.failed):
        answer.failed = failed if isinstance(failed, str) else (answer.text or f"it says {output.failed}")
    cost = _at(found, output.cost_usd)
    answer.cost_usd = (
        float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) and cost >= 0 else None
    )
    counts = [_at(found, path) for path in (output.prompt_tokens, output.completion_tokens, output.cached_tokens)]
    prompt, completion, cached = (count if isinstance(count, int) and count >= 0 else None for count in counts)
    if prompt is not None and completion is not None:
        answer.usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "cached_tokens": cached or 0,
            "reasoning_tokens": 0,
        }
    return answer


def prose_in(printed: str) -> str | None:
    """Return what stands in the place of JSON: many programs say there why they failed."""
    return None if objects_in(printed) else printed.strip() or None


def objects_in(printed: str) -> list[dict[str, Any]]:
    """Return the JSON objects of an output: one, a list of them, or lines, between which anything else may stand."""
    try:
        whole = jsonl.loads(printed)
    except ValueError:
        return list(_objects_by_line(printed))
    return [each for each in (whole if isinstance(whole, list) else [whole]) if isinstance(each, dict)]


def _objects_by_line(printed: str) -> Iterator[dict[str, Any]]:
    for line in printed.splitlines():
        if line.lstrip().startswith("{"):
            try:
                each = jsonl.loads(line)
            except ValueError:
                continue
            if isinstance(each, dict):
                yield each


def _at(found: Any, path: str | None) -> Any:
    for name, position in _STEP.findall(path or ""):
        if isinstance(found, dict) and name:
            found = found.get(name)
        elif isinstance(found, list) and position and -len(found) <= int(position) < len(found):
            found = found[int(position)]
        else:
            return None
    return found if path else None


def failure_in(
    answer: ProgramAnswer, status: int, complaint: str, name: str, now: datetime | None = None
) -> CallFailed | None:
    """Return how a program failed, or None where it answered.

    Args:
        status: its exit status.
        complaint: what it printed on standard error.
        name: what a person is told that failed.
    """
    text = (answer.text or "").strip()
    prose = len(text) <= _PROSE_CHARS and _PROSE.match(text) is not None
    if status == 0 and not answer.failed and text and not prose:
        return None
    if status == 0 and not answer.failed and not prose and answer.said is None and answer.found:
        failed = CallFailed("empty", f"{name} answered nothing")
    else:
        reasons = (answer.failed, text if prose else None, answer.said, _last_lines(complaint), text, "no answer came")
        failed = _named(next(reason for reason in reasons if reason), answer.status, status, name, now)
    failed.usage, failed.cost_usd = dict(answer.usage) if answer.usage else None, answer.cost_usd  # type: ignore[arg-type]
    return failed


def _named(reason: str, http_status: int | None, status: int, name: str, now: datetime | None) -> CallFailed:
    how = f"{name} failed" if status == 0 else f"{name} ended with status {status}"
    said = " ".join(reason.split())
    signs = (code for code, words in _SIGNS if re.search(words, said, re.IGNORECASE))
    code: CallCode | None = next(signs, None) or code_in_words(said)
    if code is None and http_status is not None and http_status >= 400:
        code = name_failure(http_status, said, {}).code
    wait_s = _wait_s(said, now or datetime.now(UTC)) if code == "rate_limited" else None
    message = f"{how}: {said[:_SHOWN_CHARS]}"
    return CallFailed(code or "program", message, retryable=wait_s is not None, retry_after_s=wait_s)


def _last_lines(complaint: str) -> str:
    return " ".join(complaint.strip().splitlines()[-3:])


def _wait_s(said: str, now: datetime) -> float | None:
    """Return how long until a limit is over, as prose says it: at a time, in a while, on a day."""
    if epoch := _EPOCH.search(said):
        return max(0.0, float(epoch[1]) - now.timestamp())
    if span := _SPAN.search(said):
        return sum(float(count) * _UNIT_S[unit.lower()] for count, unit in _PART.findall(span[1]))
    if (clock := _CLOCK.search(said)) is None or not (clock["half"] or clock["minute"]):
        return None
    try:
        return _until(clock, now)
    except (LookupError, ValueError, OSError):
        return None


def _until(clock: re.Match[str], now: datetime) -> float:
    from zoneinfo import ZoneInfo

    here = now.astimezone(ZoneInfo(clock["zone"]) if clock["zone"] else None)
    hour = int(clock["hour"]) % 12 + 12 * (clock["half"].lower() == "pm") if clock["half"] else int(clock["hour"])
    then = here.replace(hour=hour, minute=int(clock["minute"] or 0), second=0, microsecond=0)
    if clock["month"]:
        month = _MONTHS.index(clock["month"].lower()) + 1
        then = then.replace(month=month, day=int(clock["day"]), year=int(clock["year"] or here.year))
        if then < here and not clock["year"]:
            then = then.replace(year=here.year + 1)
    elif then <= here:
        then += timedelta(days=1)
    return max(0.0, (then - here).total_seconds())
