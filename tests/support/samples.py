"""Records as they stand between the tools, and what tests ask of the records that come out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from workdir import Upstream

MEMBERS = ("fake/a", "fake/b")


def question(name: str = "q1", **more: Any) -> dict[str, Any]:
    """Return a record as it comes in."""
    return {"id": name, "messages": [{"role": "user", "content": f"What is {name}?"}], **more}


def response(member: str, content: str | None = None, **more: Any) -> dict[str, Any]:
    text = f"{member} answers." if content is None else content
    head = {"member": member, "sample": 0, "layer": 1}
    return {**head, **more} if "error" in more else {**head, "content": text, "finish_reason": "stop", **more}


def failed(member: str) -> dict[str, Any]:
    """Return the response of a member that did not answer in time."""
    return response(member, error={"code": "timeout", "message": "no answer within 1 s (--timeout)"})


def panelled(name: str = "q1", responses: Iterable[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """Return a record as a panel leaves it."""
    return {**question(name), "panel": list(responses or map(response, MEMBERS)), **more}


def judged(name: str = "q1", ranking: tuple[int, ...] = (1, 0), **more: Any) -> dict[str, Any]:
    """Return a record as a judge leaves it."""
    five = ("consensus", "contradictions", "partial_coverage", "unique_insights", "blind_spots")
    return {**panelled(name), "analysis": {**{key: [] for key in five}, "ranking": list(ranking)}, **more}


def lines(records: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def without_calls(out: bytes) -> list[str]:
    """Return the records as text, key order included, without what varies from run to run."""
    records = [json.loads(line) for line in out.splitlines()]
    return [json.dumps({k: v for k, v in r.items() if k != "calls"}, ensure_ascii=False) for r in records]


def poll(upstream: Upstream, reached: Callable[[dict[str, Any]], bool], within_s: float = 60) -> dict[str, Any]:
    """Ask the stand-in how far things are until they are far enough; return its counts."""
    end = time.monotonic() + within_s
    while not reached(stats := upstream.stats()):
        assert time.monotonic() < end, stats
    return stats
