"""What is read from a record, and how it is marked: its id, its words, whose response is best, what derives from what.

The schemas in `schemas/` are the law of a record; `types.py` is the same law for the type checker. Nobody mutates one:
whoever changes something returns a new record.
"""

from __future__ import annotations

import hashlib
from collections import Counter
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


def with_error(record: Record, stage: str, code: RecordCode, message: str, calls: list[Call] | None = None) -> Record:
    """Return the record marked as failed; every later stage passes it on untouched."""
    new: dict[str, Any] = dict(record)
    if calls:
        new["calls"] = [*record.get("calls", []), *calls]
    new["error"] = {"stage": stage, "code": code, "message": message}
    return new  # type: ignore[return-value]


def texts_of(record: Record) -> list[str]:
    """Return the texts of all responses."""
    return [response.get("content") or "" for response in record.get("panel", [])]


def usable_responses(record: Record) -> list[tuple[int, Response]]:
    """Return the panel's usable responses with their positions."""
    return [(i, r) for i, r in enumerate(record.get("panel", [])) if "error" not in r]


def usable_positions(record: Record) -> list[int]:
    """Return the positions of the panel's usable responses."""
    return [i for i, response in enumerate(record.get("panel", ())) if "error" not in response]


def has_usable(record: Record) -> bool:
    """Return whether anybody on the panel answered."""
    return any("error" not in response for response in record.get("panel", ()))


def display_names(panel: list[Response]) -> list[str]:
    """Return each response's name: the member's, with `#sample` where the member was asked more than once."""
    members = [response["member"] for response in panel]
    if len(set(members)) == len(members):
        return members
    times = Counter(members)
    return [r["member"] if times[r["member"]] == 1 else f"{r['member']}#{r['sample']}" for r in panel]


def reasons_of(panel: list[Response]) -> list[str]:
    """Return why members failed, `NAME, NAME: why`, each reason once."""
    whose: dict[str, dict[str, None]] = {}
    for response in panel:
        if "error" in response:
            whose.setdefault(response["error"]["message"], {})[response["member"]] = None
    return [f"{', '.join(members)}: {message}" for message, members in whose.items()]


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
    usable, panel = set(usable_positions(record)), record.get("panel", [])
    ranking = record.get("analysis", {}).get("ranking", ())
    ranked = list(dict.fromkeys(position for position in ranking if position in usable))
    if len(ranked) == len(usable):
        return ranked

    def worth(i: int) -> tuple[bool, int, int]:
        return (panel[i].get("finish_reason") in ("stop", "tool_calls"), len(panel[i].get("content", "")), -i)

    return ranked + sorted(usable.difference(ranked), key=worth, reverse=True)


def is_solo(record: Record) -> bool:
    """Return whether the record was routed to one model alone."""
    return record.get("route", {}).get("to") == "solo"


def abstention_words(answer: Answer) -> str:
    """Return why a vote gave no answer; nothing where it gave one."""
    said = answer.get("abstained")
    if said is None:
        return ""
    return f"(no answer: {said['agreement']:.0%} of the votes agree, {said['threshold']:.0%} are asked for)"


def is_kept(record: Record) -> bool:
    """Return whether nothing more is to be done about a record's answer: the router has let it stand."""
    return record.get("route", {}).get("to") == "keep"


def is_voted_on(record: Record) -> bool:
    """Return whether a vote answers a record, whoever else would compare and write."""
    return record.get("route", {}).get("to") == "vote"


def has_sources(record: Record) -> bool:
    """Return whether something was looked up for a response, or given with the question."""
    return "evidence" in record or bool([1 for response in record.get("panel", []) if "sources" in response])


def is_settled(record: Record) -> bool:
    """Return whether the responses are known to agree, because the scouts were asked for just that: one is enough."""
    if "spared" not in record:
        return False
    layer = max((response.get("layer", 1) for response in record.get("panel", [])), default=1)
    return any((s.get("why"), s.get("layer")) == ("scouts", layer) for s in record["spared"])


def take_verbatim(record: Record, position: int, by: str = "panel", **extra: Any) -> Answer:
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
    if "reasoning_details" in response:
        answer["reasoning_details"] = response["reasoning_details"]
    return answer | extra  # type: ignore[no-any-return]


def one_survivor(record: Record, stage: str) -> list[Degraded]:
    """Return what is to be said where one response is left of several."""
    if len(record["panel"]) == 1:
        return []
    detail = f"one of {len(record['panel'])} responses came: it is the answer"
    return [{"stage": stage, "code": "one_survivor", "detail": detail}]
