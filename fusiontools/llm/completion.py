"""What a model is asked and what comes back, whichever kind of model it is: types, and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from fusiontools.record.types import Call, Message, Source, ToolCall, ToolUse, Usage


class Thoughts(Struct, frozen=True):
    """What a model thought before its answer began, as `reasoning_details`; it comes once, before all else."""

    details: Sequence[Mapping[str, Any]]


#: A piece of an answer: visible text, or OpenAI's deltas of tool calls, of which the first of each call has its id.
Delta = str | Thoughts | Sequence[Mapping[str, Any]]
#: Called with each piece as it arrives; must not block.
OnDelta = Callable[[Delta], None]


#: How many fusion servers the work of this task has been through, where it comes from one: what stops a server that
#: sits on its own panel.
DEPTH: ContextVar[int] = ContextVar("fusion_depth", default=0)
DEPTH_HEADER = "x-fusion-depth"


class CallTrace(Protocol):
    """The span of a call under way: told of its attempts, and named to whom is asked."""

    headers: dict[str, str]

    def note(self, call: Call) -> None: ...


#: That of this task's call, where calls are traced.
TRACED: ContextVar[CallTrace | None] = ContextVar("fusion_traced", default=None)


class CompletionRequest(Struct, frozen=True):
    """One question to one model: everything that decides the answer, and nothing else.

    Args:
        endpoint: the endpoint's name; its URL and key are the transport's business.
        model: the model's name as the endpoint knows it.
        messages: OpenAI chat messages.
        params: OpenAI chat parameters (`temperature`, `max_tokens`, `stop`, `seed`, `response_format`, `tools`,
            `tool_choice`, `reasoning_effort`, …); an endpoint's extras go here too (`repeat_penalty`).
        sample: tells apart repeated samples of the same request; part of the journal's key.
        cached_messages: how many leading messages other requests share, for endpoints that cache a marked prefix;
            it decides nothing about the answer and is no part of the journal's key.
        marks: the marks of the fences in the messages; they say nothing, differ from installation to installation, and
            are no part of the journal's key.
        logprobs: whether an endpoint that can is to say how likely each token was; that decides nothing about the
            answer either, and is no part of the key: an answer that was kept without it is one without.
    """

    endpoint: str
    model: str
    messages: Sequence[Message]
    params: Mapping[str, Any] = {}
    sample: int = 0
    cached_messages: int = 0
    marks: tuple[str, ...] = ()
    logprobs: bool = False


class Completion(Struct, frozen=True):
    """One finished answer. Empty content without tool calls is never a completion: it is `CallFailed("empty")`."""

    content: str
    model: str
    finish_reason: str = "stop"
    tool_calls: Sequence[ToolCall] = ()
    reasoning: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    #: What was asked for and is not in the answer, for a person.
    unmet: str | None = None
    #: How sure the model was, where that is given: the mean log probability of its tokens (natural logarithm), and the
    #: lowest mean of a window (`llm/logprobs.py`).
    mean_logprob: float | None = None
    lowest_window_logprob: float | None = None
    #: What the endpoint itself looked up for it; where tools were run here, what they found, too.
    sources: Sequence[Source] = ()
    #: The turn as its endpoint wrote it, where it must come back just so before the conversation goes on; the reasoning
    #: as OpenRouter gives it, to be sent back as it is in the next turn: signed or encrypted pieces; and whether the
    #: endpoint waits for the turn, because it has not finished.
    native: Sequence[Mapping[str, Any]] | None = None
    reasoning_details: Sequence[Mapping[str, Any]] | None = None
    paused: bool = False
    #: The tools that were run here for it, and why no more were. Never kept in the journal, which has each by itself.
    tool_runs: Sequence[ToolUse] = ()
    stopped: Literal["calls", "repeats"] | None = None
    #: Seconds to the first visible text, where the answer was streamed. Never kept in the journal.
    ttft_s: float | None = None
    #: Seconds of work, where the backend lets requests wait for one another. Never kept in the journal.
    latency_s: float | None = None


def say_whole(on_delta: OnDelta, content: str, details: Sequence[Mapping[str, Any]] | None) -> None:
    """Hand on an answer that is there as a whole."""
    if details:
        on_delta(Thoughts(details))
    on_delta(content)


class HeardDeltas:
    """Hands on what is heard, and remembers whether that was anything: what somebody has seen is not asked again."""

    __slots__ = ("_on_delta", "any")

    def __init__(self, on_delta: OnDelta) -> None:
        self._on_delta, self.any = on_delta, False

    def take(self, delta: Delta) -> None:
        """Take a piece."""
        self.any = self.any or delta != ""
        self._on_delta(delta)


class Backend(Protocol):
    """Something that answers a request once: no retries, no journal, no ledger.

    Raises `CallFailed` for everything that an endpoint can do wrong. Cancelling the task stops the generation.
    """

    async def complete(self, request: CompletionRequest, on_delta: OnDelta | None = None) -> Completion: ...

    async def aclose(self) -> None: ...
