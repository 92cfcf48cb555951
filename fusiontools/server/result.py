"""The result of a request, made from its record: the answer, what it took and how it came about, or the error."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from fusiontools.llm.finish_reasons import read_finish_reason
from fusiontools.llm.ledger import Spending
from fusiontools.record.sections import abstention_words
from fusiontools.record.types import Call, Degraded, Record
from fusiontools.server.protocols.chat import usage as openai_usage
from fusiontools.server.protocols.exchange import ApiError, ChatRequest, ChatResult, is_done
from fusiontools.server.scrubbing import scrub, scrub_record, scrub_response

if TYPE_CHECKING:
    from fusiontools.server.plan import Plan

_DAY_S = 86_400
#: What clients that know no better would try again, and what a second try would buy a second time.
_NO_RETRY = {"x-should-retry": "false"}
#: OpenAI's own words, which need no reading.
_USUAL_ENDS = ("stop", "length", "tool_calls")
_PURSES = {"budget", "record_budget", "caller_budget"}
_OF_REQUEST = {"bad_request", "context_length"}


def result_of(record: Record, plan: Plan, usage: str, *, cached: bool = False) -> ChatResult:
    """Return a record's answer as it is to be said.

    Args:
        usage: `total`, or `answer` for the tokens of the call that wrote it.

    Raises:
        ApiError: it has none.
    """
    answer: Any = record.get("answer")
    if "error" in record or answer is None:
        raise error_of(record)
    calls = () if cached else record.get("calls", [])
    whole = sum_spending(calls)
    spent = whole if usage == "total" else _sum_answer_spending(record, whole)
    block = fusion_block(record, plan, calls, whole, cached)
    sources, details = answer.get("sources", ()), answer.get("reasoning_details", ())
    reason = _finish_reason(answer)
    return ChatResult(
        abstention_words(answer) or answer["content"], answer["tool_calls"], reason, spent, block, sources, details
    )


def _finish_reason(answer: Mapping[str, Any]) -> str:
    """Return why an answer ended, in OpenAI's words: what was cut stays cut, with tool calls too."""
    reason = answer.get("finish_reason")
    if reason not in _USUAL_ENDS:
        reason = read_finish_reason(reason) or "stop"
    if reason in ("stop", "tool_calls"):
        return "tool_calls" if answer["tool_calls"] else "stop"
    return reason if reason == "content_filter" else "length"


def answer_to(request: ChatRequest, record: Record, plan: Plan, usage: str, *, cached: bool = False) -> ChatResult:
    """Return a record's answer to a request, with what of the request was not done; see `result_of`."""
    result = result_of(record, plan, usage, cached=cached)
    ignored = [part for part in request.ignored if not is_done(part, searches=plan.searches)]
    if not ignored:
        return result
    degraded = [*result.fusion.get("degraded", []), *notes_of(request, plan)]
    return replace(result, fusion={**result.fusion, "degraded": degraded, "ignored": ignored})


def notes_of(request: ChatRequest, plan: Plan) -> list[Degraded]:
    """Return what of a request was not done, as a record says it."""
    return [
        {"stage": "panel", "code": "tool_ignored", "detail": f"{part['param']}: {part['reason']}"}
        for part in request.ignored
        if not is_done(part, searches=plan.searches)
    ]


def sum_spending(calls: Sequence[Call]) -> Spending:
    """Return what a response took; a replayed call took nothing."""
    return Spending.of([call for call in calls if not call["replayed"]])


def cost_of(calls: Sequence[Call]) -> float | None:
    """Return what a response cost; None where nobody knows it of a call."""
    costs = [call["cost_usd"] for call in calls if not call["replayed"]]
    return None if None in costs else round(sum((usd for usd in costs if usd), 0.0), 10)


def _sum_answer_spending(record: Record, whole: Spending) -> Spending:
    """Return the tokens of the call that wrote the answer, whenever it was made, and what all calls cost now."""
    answer = record["answer"]
    answered = [call for call in record.get("calls", []) if call["status"] == "ok"]
    written = [call for call in answered if call["stage"] == "synth" and call.get("step") != "guard"]
    if "response" in answer:
        shown = record["panel"][answer["response"]]
        seat = (shown["member"], shown["sample"], shown["layer"])
        written = [c for c in answered if (c.get("member"), c.get("sample"), c.get("layer")) == seat]
    own = Spending.of(written[-1:])
    return replace(own, calls=whole.calls, unknown=whole.unknown, known_usd=whole.known_usd)


def fusion_block(record: Record, plan: Plan, calls: Sequence[Call], spent: Spending, cached: bool) -> dict[str, Any]:
    """Return the response's `fusion` object; what is long is in it where the client asked for it.

    Args:
        spent: the sum of the calls.
    """
    include = plan.fusion.get("include", ())
    show = scrub_response if "panel" in include else _summarize
    known: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for call in calls:
        stage, usd = call["stage"], call["cost_usd"]
        seconds[stage] = max(seconds.get(stage, 0.0), call["latency_s"])
        if usd is not None or call["replayed"]:
            known[stage] = known.get(stage, 0.0) + (usd or 0.0)
    costs = {stage: round(usd, 10) for stage, usd in known.items()}
    block: dict[str, Any] = {
        "recipe": plan.recipe.name,
        "chain": plan.chain,
        "panel": [show(response) for response in record.get("panel", [])],
        "by": record["answer"]["by"] if "answer" in record else None,
        "model": record["answer"].get("model") if "answer" in record else None,
        "cost": {"known_usd": round(sum(costs.values()), 10), "unknown_calls": spent.unknown, "by_stage_usd": costs},
        "timings": {f"{stage}_s": s for stage, s in seconds.items()},
        "calls": len(calls),
        "usage": openai_usage(spent),
        "cached": cached,
    }
    if "degraded" in record:
        block["degraded"] = [{**note, "detail": scrub(note["detail"], record)} for note in record["degraded"]]
    if "analysis" in include and "analysis" in record:
        block["analysis"] = record["analysis"]
    if "record" in include:
        block["record"] = scrub_record(record, whole=plan.shows_recipe)
    return block


def _summarize(response: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return whose response it is, and how it went."""
    status = response["error"]["code"] if "error" in response else "ok"
    return {"member": response["member"], "sample": response["sample"], "layer": response["layer"], "status": status}


def error_of(record: Record) -> ApiError:
    """Return why a record has no answer.

    Where anything was bought the status is one after which no client asks again by itself, for that would buy it again.
    """
    error: Mapping[str, Any] = record.get("error") or {"code": "no_answer", "message": "the chain made no answer"}
    code, message = error["code"], scrub(error["message"], record)
    failures = {response["error"]["code"] for response in record.get("panel", []) if "error" in response}
    calls = record.get("calls", [])
    if spent := {code, *failures} & _PURSES:
        return refuse_for_today(message) if spent == {"caller_budget"} else ApiError(402, "budget", message)
    if failures == {"price_unknown"}:
        return ApiError(402, "price_unknown", message)
    if failures and failures <= {"auth", "payment"}:
        return ApiError(502, "upstream_auth", message, headers=_NO_RETRY)
    if failures and failures <= _OF_REQUEST:
        # Everybody refuses the request itself, and a refusal costs nothing.
        return ApiError(400, "context_length" if "context_length" in failures else code, message, headers=_NO_RETRY)
    bought = any(call["cost_usd"] != 0.0 and not call["replayed"] for call in calls)
    if failures and not bought and failures <= {"refused", *_OF_REQUEST}:
        return ApiError(400, "content_filter", message, headers=_NO_RETRY)
    if bought:
        return ApiError(424, code, message, headers=_NO_RETRY)
    return ApiError(504 if failures <= {"timeout", "deadline"} and failures else 502, code, message, headers=_NO_RETRY)


def refuse_for_today(why: str, now: float | None = None) -> ApiError:
    """Return the refusal of what a day's money does not reach for, with the time until there is more.

    Args:
        now: Unix time.
    """
    left_s = int(_DAY_S - (time.time() if now is None else now) % _DAY_S) + 1
    return ApiError(402, "caller_budget", why, headers={"retry-after": str(left_s)})
