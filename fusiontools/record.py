"""The envelope that every tool reads and writes: its sections as types, its id, and how a section replaces another.

The schemas in `schemas/` are the law; the types here are the same law for the type checker (a test holds them equal).
A stage returns a new record with `with_section`; nothing in here, or anywhere, mutates one.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class Message(TypedDict, total=False):
    """One OpenAI chat message; `content` is text, content parts, or null beside `tool_calls`."""

    role: str
    content: str | list[dict[str, Any]] | None
    name: str
    tool_calls: list[ToolCall]
    tool_call_id: str


class ToolFunction(TypedDict):
    """The function a model wants called; `arguments` is JSON text, as on the wire."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """One native tool call."""

    id: str
    type: Literal["function"]
    function: ToolFunction


class Usage(TypedDict):
    """Tokens of one attempt; cached and cache_write are part of prompt, reasoning part of completion."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cache_write_tokens: NotRequired[int]


class CallError(TypedDict):
    """Why there is no answer: a stable code and the endpoint's own words."""

    code: str
    message: str


class Response(TypedDict):
    """What one member answered for one sample: `content` and the rest, or `error`."""

    member: str
    sample: int
    layer: int
    content: NotRequired[str]
    finish_reason: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]
    mean_logprob: NotRequired[float]
    error: NotRequired[CallError]


class Stance(TypedDict):
    """What one member holds on a contested topic."""

    model: str
    stance: str


class Contradiction(TypedDict):
    """A topic on which members disagree."""

    topic: str
    stances: list[Stance]


class PartialCoverage(TypedDict):
    """A point that only some members made."""

    models: list[str]
    point: str


class UniqueInsight(TypedDict):
    """A point that one member alone made."""

    model: str
    insight: str


class Analysis(TypedDict):
    """The structure of the panel's answers: OpenRouter Fusion's five keys, then our own."""

    consensus: list[str]
    contradictions: list[Contradiction]
    partial_coverage: list[PartialCoverage]
    unique_insights: list[UniqueInsight]
    blind_spots: list[str]
    ranking: list[int]
    agreement: float
    labels: dict[str, int]
    seed: int
    judges: list[str]
    supporters: NotRequired[dict[str, list[list[str]]]]
    said: NotRequired[list[dict[str, Any]]]


class Text(TypedDict):
    """A text that was the answer or could have been; `response` is the panel position it copies, where it is a copy."""

    content: str
    by: str
    model: str
    response: NotRequired[int]
    vote: NotRequired[Vote]
    pick: NotRequired[dict[str, Any]]
    draft: NotRequired[Text]
    guard: NotRequired[Guard]


class Vote(TypedDict):
    """How a vote went: the winner's key, what stood behind each key, and how a tie was broken, where there was one."""

    key: str
    kind: str
    votes: float
    of: float
    counts: dict[str, float]
    abstained: list[int]
    tie: NotRequired[str]


class Guard(TypedDict):
    """How a written answer fared against the best single response; `loser` is the text that is not the answer."""

    winner: str
    judge: str
    verdicts: list[str]
    loser: Text


class Answer(TypedDict):
    """The fused answer; `by` says who wrote the text, `response` which panel position it copies."""

    content: str
    by: Literal["synth", "panel", "vote", "pick", "solo"]
    model: str
    finish_reason: str
    tool_calls: list[ToolCall]
    response: NotRequired[int]
    vote: NotRequired[Vote]
    pick: NotRequired[dict[str, Any]]
    draft: NotRequired[Text]
    guard: NotRequired[Guard]


class Route(TypedDict):
    """Whether a record is fused or answered by one model alone, and why."""

    to: Literal["fuse", "solo"]
    reason: str
    method: str
    tier: NotRequired[str]
    model: NotRequired[dict[str, Any]]


class Spared(TypedDict):
    """A planned call that was not made, or was cut off, because enough of the others agreed.

    `why`: the `scouts` agreed, the `majority` was safe, or the whole panel agreed and got no further `layer`.
    """

    member: str
    sample: int
    layer: int
    model: str
    endpoint: str
    why: Literal["scouts", "majority", "layer"]


class Call(TypedDict):
    """One upstream attempt: a line of the ledger. Everything that varies from run to run stands here."""

    stage: str
    layer: NotRequired[int]
    member: NotRequired[str]
    sample: NotRequired[int]
    step: NotRequired[str]
    attempt: int
    model: str
    endpoint: str
    usage: Usage | None
    cost_usd: float | None
    cost_source: Literal["upstream", "table", "free"] | None
    saved_usd: NotRequired[float | None]
    latency_s: float
    ttft_s: float | None
    status: str
    replayed: bool


class Degraded(TypedDict):
    """Something that did not go as asked although an answer came."""

    stage: str
    code: str
    detail: str


class RecordError(TypedDict):
    """Why no answer is possible for this record."""

    stage: str
    code: str
    message: str


class Record(TypedDict, total=False):
    """One question on its way through a chain. Unknown keys are the user's and travel along."""

    id: str
    messages: list[Message]
    params: dict[str, Any]
    meta: dict[str, Any]
    recipe: dict[str, Any]
    route: Route
    layers: list[list[Response]]
    panel: list[Response]
    spared: list[Spared]
    analysis: Analysis
    answer: Answer
    grades: list[dict[str, Any]]
    calls: list[Call]
    degraded: list[Degraded]
    error: RecordError


#: Which sections are computed from the section on the left.
DERIVED: dict[str, tuple[str, ...]] = {
    "route": ("layers", "panel", "spared", "analysis", "answer", "grades"),
    "panel": ("layers", "spared", "analysis", "answer", "grades"),
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


def with_error(record: Record, stage: str, code: str, message: str, calls: list[Call] | None = None) -> Record:
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
