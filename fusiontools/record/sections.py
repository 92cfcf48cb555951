"""The envelope that every tool reads and writes: its id, and how a section replaces another.

The schemas in `schemas/` are the law; `sections.py` is the same law for the type checker.
A stage returns a new record with `with_section`; nothing in here, or anywhere, mutates one.

Names and numbers that are the same on every machine, because they are made from what they stand for.

The words of a message, and of the question that a record asks.

A panel response as the answer, word for word: which one is best, and how the record says whose it was.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from fusiontools.errors import RecordCode
    from fusiontools.record.types import Answer, Call, Degraded, Message, Record, Response

#: Which sections are computed from the section on the left.
DERIVED: dict[str, tuple[str, ...]] = {
    "route": ("layers", "panel", "baselines", "spared", "analysis", "answer", "grades"),
    "panel": ("layers", "baselines", "spared", "analysis", "answer", "grades"),
    "analysis": ("answer", "grades"),
    "answer": ("grades",),
}
#: The stages that make each section; `degraded` lines are dropped together with what they speak of.
MAKERS = {"route": ("route",), "panel": ("panel",), "analysis": ("judge",), "answer": ("synth", "vote", "pick")}


def with_section(
    record: Record, section: str, value: Any, calls: list[Call] | None = None, degraded: list[Degraded] | None = None
) -> Record:
    """Return the record with one section (re)computed: what was derived from it is dropped, the ledger is kept.

    Args:
        section: `route`, `panel`, `analysis` or `answer`.
        value: the section; None leaves it out (a judge that failed has no analysis).
        calls: the attempts made for it, appended to the ledger.
        degraded: what went wrong on the way.
    """
    stale = DERIVED[section]
    makers = {maker for name in (section, *stale) for maker in MAKERS.get(name, ())}
    new: dict[str, Any] = {key: kept for key, kept in record.items() if key not in stale}
    if value is None:
        new.pop(section, None)
    else:
        new[section] = value
    if calls:
        new["calls"] = [*record.get("calls", []), *calls]
    notes = [note for note in record.get("degraded", []) if note.get("stage") not in makers] + (degraded or [])
    if notes:
        new["degraded"] = notes
    else:
        new.pop("degraded", None)
    return new  # type: ignore[return-value]


def with_error(record: Record, stage: str, code: RecordCode, message: str, calls: list[Call] | None = None) -> Record:
    """Return the record marked as failed; every later stage passes it on untouched."""
    new: dict[str, Any] = dict(record)
    if calls:
        new["calls"] = [*record.get("calls", []), *calls]
    new["error"] = {"stage": stage, "code": code, "message": message}
    return new  # type: ignore[return-value]


def answered(record: Record) -> list[tuple[int, Response]]:
    """Return the panel's usable responses with their positions."""
    return [(i, r) for i, r in enumerate(record.get("panel", [])) if "error" not in r]


def display_names(panel: list[Response]) -> list[str]:
    """Return each response's name: the member's, with `#sample` where the member was asked more than once."""
    counts: dict[str, int] = {}
    for response in panel:
        counts[response["member"]] = counts.get(response["member"], 0) + 1
    return [r["member"] if counts[r["member"]] == 1 else f"{r['member']}#{r['sample']}" for r in panel]


def question_id(messages: list[Message]) -> str:
    """Return 16 hex digits of SHA-256 over the canonical JSON of the question."""
    return hashlib.sha256(orjson.dumps(messages, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def digest(*parts: str) -> int:
    """Return a stable 31-bit number for these parts: seeds and shuffles that are the same on every machine."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:4], "big") >> 1


def text_of(message: Message) -> str:
    """Return a message's text; the text parts joined where the content is a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content or [] if part.get("type") == "text")


def question_text(record: Record) -> str:
    """Return the text of the last user message, or of the last message where no user spoke."""
    messages = record["messages"]
    for message in reversed(messages):
        if message.get("role") == "user":
            return text_of(message)
    return text_of(messages[-1])


def best(record: Record) -> int:
    """Return the panel position of the best ranked response, else of the longest finished one."""
    return by_rank(record)[0]


def by_rank(record: Record) -> list[int]:
    """Return the positions of all usable responses, best first: as ranked, then the longest finished ones."""
    usable = dict(answered(record))
    ranked = [position for position in record.get("analysis", {}).get("ranking", []) if position in usable]

    def worth(i: int) -> tuple[bool, int, int]:
        return (usable[i].get("finish_reason") in ("stop", "tool_calls"), len(usable[i].get("content", "")), -i)

    rest = sorted(usable.keys() - set(ranked), key=worth, reverse=True)
    return list(dict.fromkeys(ranked)) + rest


def is_solo(record: Record) -> bool:
    """Return whether the record was routed to one model alone."""
    return record.get("route", {}).get("to") == "solo"


def is_settled(record: Record) -> bool:
    """Return whether the responses are known to agree, because the scouts were asked for just that: one is enough."""
    layer = max((response.get("layer", 1) for response in record.get("panel", [])), default=1)
    return any((s.get("why"), s.get("layer")) == ("scouts", layer) for s in record.get("spared", []))


def verbatim(record: Record, position: int, by: str = "panel", **extra: Any) -> Answer:
    """Return a response as an answer; `extra` says how it came to be chosen.

    A record that was routed to one model alone says `solo`, whichever stage passes its response on.
    """
    response = record["panel"][position]
    if is_solo(record):
        by = "solo"
    answer: Any = {
        "content": response.get("content", ""),
        "by": by,
        "model": response["member"],
        "finish_reason": response.get("finish_reason", "stop"),
        "tool_calls": response.get("tool_calls", []),
        "response": position,
    }
    return answer | extra  # type: ignore[no-any-return]


def copied(
    record: Record, position: int, degraded: list[Degraded], calls: list[Call] | None = None, by: str = "panel"
) -> Record:
    """Return the record with a response as its answer."""
    return with_section(record, "answer", verbatim(record, position, by), calls, degraded)


def one_survivor(record: Record, stage: str) -> list[Degraded]:
    """Return what is to be said where one response is left of several."""
    if len(record["panel"]) == 1:
        return []
    detail = f"one of {len(record['panel'])} responses came: it is the answer"
    return [{"stage": stage, "code": "one_survivor", "detail": detail}]
