"""What the server's protocols have in common: a request as we understand it, and an answer as it is to be written.

A protocol (`chat`, `responses`, `messages`) reads a body into a `ChatRequest` and writes what comes of it. It knows
nothing of recipes, chains, sockets or clients: bodies and bytes in, values out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired, Protocol, TypedDict

from msgspec import Struct

from fusiontools.errors import FusionError
from fusiontools.llm.ledger import Spending
from fusiontools.record.types import Message, Source, ToolCall

#: The model that means the first recipe.
FUSION = "fusion"


#: What `fuse-serve` refuses with: HTTP status, code, and when. Where the models failed the code is one of
#: `errors.FAILURE_CODES`.
API_CODES: tuple[tuple[int, str, str], ...] = (
    (400, "invalid_json", "The body is not JSON."),
    (400, "invalid_request", "Something in it cannot be; `param` says where."),
    (400, "unsupported_parameter", "A parameter that cannot be honoured."),
    (400, "unsupported", "The same, in the Responses API: what needs answers that were stored."),
    (400, "invalid_override", "A `fusion` key that cannot be."),
    (400, "override_not_allowed", "A `fusion` key or a model in it that may not be said here."),
    (400, "conversation_too_large", "A conversation with more than `--store-mib`."),
    (400, "too_many_calls", "More than `--max-calls`."),
    (400, "too_many_messages", "More than `--max-messages`."),
    (400, "fusion_loop", "The request came through a fusion server already (`--max-depth`)."),
    (400, "context_length_exceeded", "Every member says that the prompt is too long."),
    (400, "content_filter", "Every member's filter refuses the prompt."),
    (400, "client_left", "The client left in the middle of its request."),
    (401, "invalid_api_key", "No key, or a wrong one."),
    (402, "budget", "A cost limit would be passed."),
    (402, "caller_budget", "The key has spent its day's money."),
    (402, "price_unknown", "A cost limit holds, and nobody knows a model's price."),
    (403, "origin_not_allowed", "A web page that may not ask (`--allow-origin`)."),
    (403, "page_keys_off", "The page may bring this server no endpoint's key (`--no-page-keys`)."),
    (404, "model_not_found", "No such model or recipe; the message lists what there is."),
    (404, "not_found", "No such page."),
    (404, "run_not_found", "No such run of this key is under way, or no such member is writing in it."),
    (404, "response_not_found", "No such response is kept for this key."),
    (404, "previous_response_not_found", "The same, of `previous_response_id`."),
    (404, "conversation_not_found", "The same, of a conversation."),
    (404, "item_not_found", "The same, of an item by reference."),
    (408, "request_timeout", "The request did not come in within `--read-timeout`."),
    (413, "request_too_large", "Larger than `--max-body-mib`."),
    (415, "unsupported_media_type", "Not `application/json`."),
    (424, "no_answer", "The chain made no answer; 400 in Chat Completions."),
    (424, "broken_off", "In a stream: the model broke off, and another response stands in."),
    (429, "rate_limit_exceeded", "Too many requests, with `Retry-After`."),
    (500, "internal_error", "A bug of ours."),
    (502, "upstream_auth", "The endpoint does not accept the server's key or account."),
    (503, "server_overloaded", "The queue is full, with `Retry-After`."),
)


class ApiError(FusionError):
    """A request that gets an error for an answer.

    Args:
        status: the HTTP status.
        code: a word for programs.
        message: what is wrong, where, and what to do, for a person.
        param: the parameter that is at fault, where one is: `messages[2].content`.
        headers: what else the response says, such as `retry-after`.
        details: what a program is told beside the code, where the protocol has a place for it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code, message)
        self.status = status
        self.param = param
        self.headers = headers or {}
        self.details = details

    @property
    def kind(self) -> str:
        """The error's `type` in OpenAI's envelope."""
        return _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")

    @property
    def openai_code(self) -> str:
        """The code as OpenAI spells it, where its clients know it by name: they shorten the conversation then."""
        return "context_length_exceeded" if self.code == "context_length" else self.code


_KINDS = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    424: "upstream_error",
    429: "rate_limit_error",
    502: "upstream_error",
    503: "overloaded_error",
    504: "upstream_error",
}


class Ignored(TypedDict):
    """A part of a request that is not done; `param` is its place: `tools[1]`, `tool` its kind where it is one."""

    param: str
    reason: str
    tool: NotRequired[str]


#: How the kinds of tools begin that search the web, OpenAI's, Anthropic's, Gemini's, xAI's, Groq's and Moonshot's;
#: OpenRouter writes its own name and a colon before them.
_SEARCHES = ("web", "google_search", "live_search", "browser_search", "$web_search")


def ignore_tool(param: str, kind: str) -> Ignored:
    """Return that a tool is left out: one that runs at the provider, or that only the provider's models can call.

    Every protocol asks here of every tool that is none of the client's own. A search is not left out where members
    search: `is_done` says so when the plan is known.
    """
    return {"param": param, "reason": f"nobody here runs {kind!r}; models are not shown it", "tool": kind}


def is_done(ignored: Ignored, *, searches: bool) -> bool:
    """Return whether a tool that a protocol would leave out is done by the members' own search."""
    return searches and ignored.get("tool", "").rpartition(":")[2].startswith(_SEARCHES)


class ChatRequest(Struct, frozen=True):
    """A request in the words of the record, whichever protocol it came in.

    Args:
        model: as the client names it.
        messages: OpenAI chat messages.
        params: what is wanted of the visible answer, under OpenAI's chat names.
        stream: whether the answer is to be said as it is written.
        fusion: the client's overrides as it spelled them; checked elsewhere.
        says_usage: whether a stream ends with what it took.
        echo: what the protocol itself will say again in its answer.
        unanswerable: why no fusion can answer it; an endpoint that it passes through to may know better.
        ignored: what of it is not done, each with its place and why.
        keep: takes the whole answer, before it goes out, where the client may name it later.
        over_panel: whether it brings a panel along, so that only what stands behind the panel is done.
        reads_along: whether a stream says what each member writes, whatever `fusion.events` says.
    """

    model: str
    messages: list[Message]
    params: dict[str, Any] = {}
    stream: bool = False
    fusion: Mapping[str, Any] = {}
    says_usage: bool = False
    echo: Mapping[str, Any] = {}
    unanswerable: ApiError | None = None
    ignored: Sequence[Ignored] = ()
    keep: Callable[[dict[str, Any]], None] | None = None
    over_panel: bool = False
    reads_along: bool = False


class ResponseMeta(Struct, frozen=True):
    """What every part of one response repeats.

    Args:
        id: 32 hex digits; a protocol puts its own prefix before them.
        created: Unix time, in seconds.
        model: as the client named it.
        prompt_tokens: about how many tokens the request itself has, for who wants to know before the end.
    """

    id: str
    created: int
    model: str
    prompt_tokens: int = 0


class CallIds:
    """Ids for the calls of one answer: no two alike, and none that the conversation has already.

    Many servers count from `call_0` in every turn, and some give two calls one id; a client that keeps calls by their
    ids would mix them up.

    Args:
        prefix: begins the id of a call that has none.
    """

    def __init__(self, request: ChatRequest, meta: ResponseMeta, prefix: str = "call") -> None:
        self._answer, self._prefix = meta.id[:12], prefix
        self._taken = {call.get("id") for told in request.messages for call in told.get("tool_calls") or []}

    def of(self, given: str) -> str:
        """Return the id that a call goes out with."""
        unique, count = given or f"{self._prefix}_{self._answer}", 1
        while unique in self._taken:
            unique = f"{given or self._prefix}_{self._answer}" + (f"_{count}" if count > 1 else "")
            count += 1
        self._taken.add(unique)
        return unique


class ChatResult(Struct, frozen=True):
    """A finished answer.

    Args:
        finish_reason: `stop`, `length`, `tool_calls` or `content_filter`.
        fusion: the `fusion` block of the response: recipe, members, degradation, costs, timings.
        sources: what the answer cites.
        reasoning_details: what the model thought, for a client that sends it back in the next turn.
    """

    content: str
    tool_calls: Sequence[ToolCall]
    finish_reason: str
    spent: Spending
    fusion: Mapping[str, Any] = {}
    sources: Sequence[Source] = ()
    reasoning_details: Sequence[Mapping[str, Any]] = ()


class StreamWriter(Protocol):
    """Says one stream; each method returns the bytes that it puts on the wire, possibly none.

    `open` comes first. Then any number of `text`, `calls`, `progress`, `alive` and `event`, and before the first text
    or call `thoughts`, once at most; then either `close` or `broken`. Text and calls come in the order in which the
    model wrote them. Pieces of calls are OpenAI's deltas: `index` on each, `id` and the name on the first of each call,
    then pieces of `arguments`.
    """

    def open(self) -> bytes: ...

    def thoughts(self, details: Sequence[Mapping[str, Any]]) -> bytes:
        """Say what the model thought first, to a client that sends it back."""
        ...

    def text(self, text: str) -> bytes: ...

    def calls(self, deltas: Sequence[Mapping[str, Any]]) -> bytes: ...

    def progress(self, words: str) -> bytes:
        """Say what goes on, to who does not read it a comment: `panel 2/3`."""
        ...

    def draft(self, text: str) -> bytes:
        """Say a piece of a draft as the model's thoughts, where the protocol has a place for them."""
        ...

    def alive(self) -> bytes:
        """Keep the line open while nothing happens."""
        ...

    def event(self, event: Mapping[str, Any]) -> bytes:
        """Say something richer, to a client that asked for events."""
        ...

    def close(self, result: ChatResult) -> bytes: ...

    def broken(self, refused: ApiError, result: ChatResult | None) -> bytes:
        """End a stream that failed half way; `done` holds what was bought and can stand in."""
        ...


class StreamStyle(Struct, frozen=True):
    """How the operator wants streams to sound.

    Args:
        keepalive: `comment`, `chunk` (an event that says nothing) or `off`.
        progress: `comment`, `reasoning` (as the model's thoughts, where the protocol has a place for them), `draft` (as
            comments, with what the first member writes as the model's thoughts) or `off`.
    """

    keepalive: str = "comment"
    progress: str = "comment"


class WireProtocol(Protocol):
    """A protocol."""

    def read(self, body: dict[str, Any]) -> ChatRequest:
        """Read a request.

        Raises:
            ApiError: with 400 and the place of what is wrong.
        """
        ...

    def whole(self, request: ChatRequest, meta: ResponseMeta, result: ChatResult) -> dict[str, Any]:
        """Return the body of a plain response."""
        ...

    def writer(self, request: ChatRequest, meta: ResponseMeta, style: StreamStyle) -> StreamWriter:
        """Return what says a stream."""
        ...

    def error(self, refused: ApiError) -> dict[str, Any]:
        """Return the body of an error."""
        ...
