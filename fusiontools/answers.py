"""A panel response as the answer, word for word: which one is best, and how the record says whose it was."""

from __future__ import annotations

from typing import Any

from fusiontools.record import Answer, Call, Degraded, Record, answered, with_section


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
