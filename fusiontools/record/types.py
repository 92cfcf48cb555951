"""The sections of a record as types: what `schemas/` says, for the type checker; a test holds them equal."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from fusiontools.errors import CallCode, CallStatus, RecordCode, StageCode


class Message(TypedDict, total=False):
    """One OpenAI chat message; `content` is text, content parts, or null beside `tool_calls`."""

    role: str
    content: str | list[dict[str, Any]] | None
    name: str
    tool_calls: list[ToolCall]
    tool_call_id: str
    reasoning_details: list[dict[str, Any]]


class ToolFunction(TypedDict):
    """The function a model wants called; `arguments` is JSON text, as on the wire."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """One native tool call; what Gemini puts beside one (`thought_signature`) must come back with it."""

    id: str
    type: Literal["function"]
    function: ToolFunction
    extra_content: NotRequired[dict[str, Any] | None]
    provider_specific_fields: NotRequired[dict[str, Any] | None]
    thought_signature: NotRequired[str | None]


class Usage(TypedDict):
    """Tokens of one attempt; cached and cache_write are part of prompt, reasoning part of completion."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cache_write_tokens: NotRequired[int]


class CallError(TypedDict):
    """Why there is no answer, or no grade: a stable code and the endpoint's own words."""

    code: CallCode | StageCode
    message: str


class Source(TypedDict):
    """Something that a text rests on: found by a search, fetched, given with the question, or only named by a model."""

    url: str
    how: Literal["search", "fetched", "given", "claimed"]
    title: NotRequired[str]
    snippet: NotRequired[str]
    date: NotRequired[str]


class ToolUse(TypedDict):
    """One run of a tool for a model: `arguments` as JSON text, the `size` of the result in bytes and its SHA-256."""

    name: str
    arguments: str
    status: str
    size: NotRequired[int]
    digest: NotRequired[str]


class Evidence(TypedDict):
    """A text that was given with the question."""

    text: str
    title: NotRequired[str]
    url: NotRequired[str]


class Response(TypedDict):
    """What one member answered for one sample: `content` and the rest, or `error`."""

    member: str
    sample: int
    layer: int
    content: NotRequired[str]
    finish_reason: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]
    reasoning_details: NotRequired[list[dict[str, Any]]]
    mean_logprob: NotRequired[float]
    lowest_window_logprob: NotRequired[float]
    sources: NotRequired[list[Source]]
    tool_runs: NotRequired[list[ToolUse]]
    stopped: NotRequired[Literal["calls", "repeats"]]
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
    agreement: float | None
    labels: dict[str, int]
    seed: int
    judges: list[str]
    supporters: NotRequired[dict[str, list[list[str]]]]
    said: NotRequired[list[dict[str, Any]]]
    sources: NotRequired[list[Source]]
    tool_runs: NotRequired[list[ToolUse]]


class Vote(TypedDict):
    """How a vote went: the winner's key, what stood behind each key and who, and how a tie was broken."""

    key: str
    kind: str
    votes: float
    of: float
    counts: dict[str, float]
    voters: NotRequired[dict[str, list[int]]]
    abstained: list[int]
    weighing: NotRequired[str]
    dropped: NotRequired[list[int]]
    tie: NotRequired[str]


class Abstention(TypedDict):
    """Why a vote gave no answer: the share of the votes that agree, and the share that is asked for at this risk."""

    agreement: float
    threshold: float
    risk: float


class Guard(TypedDict):
    """How a written answer fared against the best single response; `loser` is the text that is not the answer."""

    winner: str
    judge: str
    verdicts: list[str]
    loser: Answer


class Answer(TypedDict):
    """The fused answer, or a text that could have been it (`draft`, `loser`): without a reason why it ended, then.

    `by` says which stage wrote the text; `panel` is a member's response word for word, `solo` that of the one model
    that was asked. `response` is the panel position that it copies.
    """

    content: str
    by: str
    model: str
    finish_reason: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]
    reasoning_details: NotRequired[list[dict[str, Any]]]
    sources: NotRequired[list[Source]]
    response: NotRequired[int]
    vote: NotRequired[Vote]
    abstained: NotRequired[Abstention]
    pick: NotRequired[dict[str, Any]]
    draft: NotRequired[Answer]
    guard: NotRequired[Guard]


class Route(TypedDict):
    """Whether a record is fused, voted on, answered by one model alone, or kept as it is answered, and why."""

    to: Literal["fuse", "vote", "solo", "keep"]
    reason: str
    method: str
    tier: NotRequired[str]
    model: NotRequired[dict[str, Any]]


class Spared(TypedDict):
    """A planned call that was not made, or was cut off, because enough of the others agreed.

    `why`: the `scouts` agreed, the `majority` was safe, the whole panel agreed and got no further `layer`, or
    another response proposed a tool `call`.
    """

    member: str
    sample: int
    layer: int
    model: str
    endpoint: str
    why: Literal["scouts", "majority", "layer", "call"]


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
    cost_source: Literal["upstream", "table", "batch", "free"] | None
    saved_usd: NotRequired[float | None]
    latency_s: float
    ttft_s: float | None
    status: CallStatus
    replayed: bool
    trace: NotRequired[str]


class Degraded(TypedDict):
    """Something that did not go as asked although an answer came."""

    stage: str
    code: StageCode
    detail: str


class RecordError(TypedDict):
    """Why no answer is possible for this record."""

    stage: str
    code: RecordCode
    message: str


class Grade(TypedDict):
    """How good one text is: the answer, a panel response, one of an earlier layer, or a baseline's.

    `score` is from 0 to 1; a text that failed has 0 and an `error`. `key` is what it votes for, None where it abstains.
    """

    of: Literal["answer", "panel", "layer", "baseline"]
    member: str
    sample: int
    layer: int
    grader: str
    score: float
    key: str | None
    said: NotRequired[str]
    runs: NotRequired[list[float]]
    criteria: NotRequired[list[dict[str, Any]]]
    error: NotRequired[CallError]


class Compaction(TypedDict):
    """How a conversation was made shorter: in `messages` a summary by `model` stands for the first `messages` of them.

    `tokens` is about how many there were, `left_tokens` how many are left; a system prompt is not summarised.
    """

    model: str
    messages: int
    tokens: int
    left_tokens: int


class Record(TypedDict, total=False):
    """One question on its way through a chain. Unknown keys are the user's and travel along."""

    id: str
    messages: list[Message]
    params: dict[str, Any]
    meta: dict[str, Any]
    evidence: list[Evidence]
    epoch: int
    recipe: dict[str, Any]
    compaction: Compaction
    route: Route
    layers: list[list[Response]]
    panel: list[Response]
    baselines: list[Response]
    spared: list[Spared]
    analysis: Analysis
    answer: Answer
    grades: list[Grade]
    calls: list[Call]
    degraded: list[Degraded]
    error: RecordError
