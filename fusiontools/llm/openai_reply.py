"""What OpenAI-compatible endpoints answer, in all the ways it really comes: an answer put together of its objects.

Bodies and the pieces of streams are told apart by what they are. Written by hand, because the types of OpenAI's SDK
import slowly and are strict where real servers are not.

Source: OpenAI's and OpenRouter's API references; the deviations are those of real servers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, defstruct
from msgspec.json import Decoder

from fusiontools.errors import CallCode, CallFailed
from fusiontools.llm.completion import Completion, Delta, Thoughts
from fusiontools.llm.events import DONE, Joiner, mend, mend_all
from fusiontools.llm.finish_reasons import read_finish_reason
from fusiontools.llm.ledger import MOST_TOKENS, MOST_USD, find_usage, usage_of
from fusiontools.llm.logprobs import read_logprobs, sum_up
from fusiontools.llm.provider_search import read_citations
from fusiontools.llm.reasoning_details import join_details
from fusiontools.llm.thoughts import HARMONY_HEADS, ThoughtFilter, closes_unopened, split_thoughts
from fusiontools.llm.tool_calls import CallMerger, read_calls
from fusiontools.record.clean import is_visible
from fusiontools.record.sources import merge_sources

if TYPE_CHECKING:
    from fusiontools.record.types import Source, ToolCall, Usage

_SHOWN_CHARS = 300
#: Why Anthropic's API ends a turn that is not over: it wants it back to go on.
PAUSED = "pause_turn"
_HTTP_FAILURE = re.compile("[45][0-9][0-9]")
#: Where servers put a model's thoughts beside its text.
_REASONING = ("reasoning_content", "reasoning", "thinking")
#: What a message may hold beside its text.
_BESIDE_TEXT = (
    *_REASONING,
    *("reasoning_details", "refusal", "tool_calls", "function_call", "annotations", "citations", "native"),
)
#: What a piece of a stream, and the choice in it, may hold where it brings text and nothing else.
_OF_A_PIECE = frozenset(
    (
        *("id", "object", "created", "model", "choices", "usage"),
        *("provider", "system_fingerprint", "service_tier", "obfuscation"),
    )
)
_OF_ITS_CHOICE = frozenset(("index", "delta", "finish_reason", "native_finish_reason", "logprobs"))


#: What says nothing where it stands, and what counts tokens.
_Nothing = Literal[""] | None | Annotated[list[Any], Meta(max_length=0)]
_Count = Annotated[int, Meta(ge=0, lt=MOST_TOKENS)]
_PlainMessage: Any = defstruct("_PlainMessage", [("content", str), *((name, _Nothing, None) for name in _BESIDE_TEXT)])


class _PromptDetails(Struct):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None


class _CompletionDetails(Struct):
    reasoning_tokens: _Count | None = None


class _PlainUsage(Struct):
    prompt_tokens: Annotated[int, Meta(gt=0, lt=MOST_TOKENS)]
    completion_tokens: _Count
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    cost: Annotated[float, Meta(ge=0, le=MOST_USD)] | None = None
    is_byok: bool | None = None
    cost_in_usd_ticks: None = None
    cached_tokens: None = None
    prompt_cache_hit_tokens: None = None


class _PlainChoice(Struct):
    message: _PlainMessage
    finish_reason: Literal["stop", "length"]
    error: _Nothing = None
    delta: Any = UNSET
    logprobs: Any = None


class _PlainAnswer(Struct):
    choices: tuple[_PlainChoice]
    usage: _PlainUsage
    model: str | None = None
    object: str | None = None
    error: _Nothing = None
    base_resp: _Nothing = None
    citations: _Nothing = None
    search_results: _Nothing = None


@functools.cache
def _plain_answers() -> Decoder[_PlainAnswer]:
    return Decoder(_PlainAnswer)


def read_plain(body: bytes, model: str) -> Completion | None:
    """Read what most answers are: one message that is text and says that it is whole. None leaves it to `ReplyReader`.

    It says what that reader says, in a fraction of the time, but for faulty UTF-8 in what nobody reads, which is no
    fault here. What is of another kind than is written above is left to that reader.
    """
    try:
        answer = _plain_answers().decode(body)
    except (RecursionError, ValueError):
        return None
    [choice] = answer.choices
    content: str = choice.message.content
    if choice.delta is not UNSET or answer.object == "error":
        return None
    if not ("!" <= content[:1] <= "~" or is_visible(content)):
        return None
    named = answer.model or model
    if _may_hold_thoughts(content) and split_thoughts(content, f"{model} {named}")[0] is not content:
        return None
    said = answer.usage
    if said.is_byok:
        return None
    asked, written = said.prompt_tokens_details, said.completion_tokens_details
    usage: Usage = {
        "prompt_tokens": said.prompt_tokens,
        "completion_tokens": said.completion_tokens,
        "cached_tokens": (asked.cached_tokens or 0) if asked is not None else 0,
        "reasoning_tokens": (written.reasoning_tokens or 0) if written is not None else 0,
    }
    if asked is not None and asked.cache_write_tokens:
        usage["cache_write_tokens"] = asked.cache_write_tokens
    sure = sum_up(read_logprobs(choice.logprobs)) if choice.logprobs else {}
    return Completion(content, named, choice.finish_reason, [], usage=usage, cost_usd=said.cost, **sure)


def _may_hold_thoughts(text: str) -> bool:
    """Return whether there is anything in a text with which the mark of a thought begins, or that stands for one."""
    return "<" in text or "[" in text or "◁" in text or text.lstrip().startswith(HARMONY_HEADS)


class Reply:
    """An answer as far as it has come, as objects in OpenAI's shape."""

    def __init__(
        self,
        model: str,
        *,
        streamed: bool = False,
        waits: bool = False,
        tools: Collection[str] = (),
    ) -> None:
        self.closes_unopened = False
        self._model, self._streamed, self._waits = model, streamed, waits
        self._filter: ThoughtFilter | None = None
        self._joiner = Joiner()
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._details: list[Any] = []
        #: Whether a piece of the answer has been handed on.
        self._begun = False
        #: Whether pieces came, and whether a whole message did that is none of them.
        self._in_pieces = self._whole = False
        self._sources: list[Source] = []
        self._native: list[dict[str, Any]] | None = None
        self._logprobs: list[float] = []
        self._calls = CallMerger(tools)
        self._called = False
        #: The whole message, of a plain answer or repeated at a stream's end: it counts where no pieces came.
        self._message: dict[str, Any] | None = None
        self._done = False
        #: The number of the choice that is read.
        self._choice: Any = None
        self._ended: Any = None
        self._data: dict[str, Any] = {}

    @property
    def shown(self) -> bool:
        """Whether somebody has seen a part of the answer."""
        return self._streamed and (self._called or (self._filter is not None and self._filter.shows))

    def take(self, event: dict[str, Any]) -> list[Delta]:
        """Add an event; returns what it brings of the visible answer."""
        # Some servers give no other sign that the answer is complete.
        self._done = self._done or event is DONE
        if usage := find_usage(event):
            self._data["usage"] = usage
        if event.get("object") == "error" and not event.get("error"):
            event = {"error": event}
        if "base_resp" in event and (failed := _base_failure(event)):
            event = {"error": failed}
        if event.get("error"):
            _refuse_error(mend_all(event), self._data, shown=self.shown)
        if named := event.get("model"):
            self._data.setdefault("model", mend(str(named)))
        if not (choices := event.get("choices")):
            self._sources += read_citations(event, {})
            return []
        # One answer was asked for; pieces of another one have no place in it.
        first = next((choice for choice in choices if not choice.get("index")), choices[0])
        if self._choice is None:
            self._choice = first.get("index")
        elif first.get("index") not in (None, self._choice):
            return []
        choice = first
        if choice.get("error"):
            _refuse_error(mend_all(choice), self._data, shown=self.shown)
        self._ended = choice.get("finish_reason") or self._ended
        if said := choice.get("logprobs"):
            self._logprobs += read_logprobs(said)
        delta = choice.get("delta")
        self._sources += read_citations(event, choice.get("message") or delta or {})
        if message := choice.get("message"):
            self._message = message
            self._whole = self._whole or delta is None
        self._in_pieces = self._in_pieces or delta is not None
        return self._add(delta or {})

    def finish(self, ttft_s: float | None = None, *, cut: bool = True) -> tuple[Completion, list[Delta]]:
        """Return the completion and what of it was not handed on, or fail by name where there is none.

        Args:
            cut: whether an answer that says no end was cut off, as a stream is.
        """
        calls: list[ToolCall] = []
        if self._message and not (self._content or self._called):
            calls = self._read_message(self._message)
        reason = read_finish_reason(self._ended)
        cost = _cost_fields(self._data)
        if reason is None and not (self._done or self._whole):
            if not (cut or self._in_pieces):
                raise CallFailed("empty", "the endpoint answered no choices", retryable=True, **cost)
            raise CallFailed("connection", "the stream ended before the answer did", retryable=not self.shown, **cost)
        if reason == "error":
            raise CallFailed("upstream", "the endpoint broke the answer off", retryable=not self.shown, **cost)
        left: list[Delta] = [pieces] if (pieces := self._calls.finish()) else []
        self._content.append(self._joiner.finish())
        raw = "".join(self._content)
        content, thought = split_thoughts(raw, self._names())
        shown = self._filter.shown if self._filter else ""
        self.closes_unopened = closes_unopened(raw, thought)
        if content.startswith(shown) and (rest := content[len(shown) :]):
            left.insert(0, rest)
        reasoning = mend("".join(self._reasoning)) or thought
        calls = calls or self._calls.calls()
        # What a model wrote before it refused is no answer.
        paused = self._native is not None and self._ended == PAUSED
        if reason == "refusal" or not (is_visible(content) or calls or paused):
            code, why = _why_nothing(mend("".join(self._refusal)), self._ended, bool(reasoning))
            raise CallFailed(code, why, **cost)
        completion = Completion(
            content=content,
            model=self._data.get("model") or self._model,
            finish_reason=reason or "stop",
            tool_calls=calls,
            reasoning=reasoning or None,
            reasoning_details=self._joined_details() or None,
            ttft_s=ttft_s,
            sources=tuple(merge_sources(self._sources)),
            native=self._native,
            paused=paused,
            **sum_up(self._logprobs),
            **cost,
        )
        return completion, self._with_thoughts(left)

    def text_alone_in(self, event: dict[str, Any]) -> str:
        """Return the text of a piece that brings nothing else, as most do; nothing, where there is more to be read."""
        if not (self._in_pieces and "model" in self._data):
            return ""
        try:
            [choice] = event["choices"]
            delta = choice["delta"]
            text = delta["content"]
        except (LookupError, TypeError, ValueError):
            return ""
        if not (
            event.keys() <= _OF_A_PIECE and choice.keys() <= _OF_ITS_CHOICE and choice.get("index") == self._choice
        ):
            return ""
        if (
            event.get("usage")
            or choice.get("finish_reason")
            or choice.get("logprobs")
            or event.get("object") == "error"
        ):
            return ""
        if len(delta) > 1 and [name for name, value in delta.items() if value and name not in ("role", "content")]:
            return ""
        return text if type(text) is str else ""

    def add_text(self, content: str) -> list[Delta]:
        """Add text; returns what it brings of the visible answer."""
        text = self._joiner.join(content)
        if not text:
            return []
        self._content.append(text)
        if not (self._streamed and (visible := (self._filter or self._text_filter()).take(text))):
            return []
        return [visible] if self._begun else self._with_thoughts([visible])

    def _add(self, delta: dict[str, Any]) -> list[Delta]:
        content, thought = _content(delta.get("content"))
        # Some servers give the same thoughts under two names.
        named = next((said for name in _REASONING if (said := _plain(delta.get(name)))), "") or thought
        if named:
            self._reasoning.append(named)
            if self._streamed:
                self._text_filter().release()
        if details := delta.get("reasoning_details"):
            self._details += details
        if refusal := delta.get("refusal"):
            self._refusal.append(refusal)
        brought = self.add_text(content) if content else []
        if proposed := _proposed(delta):
            self._called = True
            if pieces := self._calls.take(proposed):
                brought.append(pieces)
        return self._with_thoughts(brought)

    def _with_thoughts(self, brought: list[Delta]) -> list[Delta]:
        """Put the thoughts so far before the first piece of the answer."""
        if not brought or self._begun:
            return brought
        self._begun = True
        return [Thoughts(self._joined_details()), *brought] if self._details and self._streamed else brought

    def _joined_details(self) -> list[dict[str, Any]]:
        return join_details(mend_all({"details": self._details})["details"])

    def _read_message(self, message: dict[str, Any]) -> list[ToolCall]:
        """Read a whole message; each call in it is one, whatever its id."""
        calls = read_calls(_proposed(message))
        if any(message.get(name) for name in _REASONING):
            self._reasoning.clear()
        if message.get("reasoning_details"):
            self._details.clear()
        self._add({name: value for name, value in message.items() if name not in ("tool_calls", "function_call")})
        self._filter = None  # nobody has been handed anything
        self._native = message.get("native") or None
        return calls

    def _text_filter(self) -> ThoughtFilter:
        if self._filter is None:
            self._filter = ThoughtFilter(self._names(), waits=self._waits)
        return self._filter

    def _names(self) -> str:
        return f"{self._model} {self._data.get('model', '')}"


def _base_failure(event: dict[str, Any]) -> dict[str, Any] | None:
    from fusiontools.llm.failures import find_base_failure

    return find_base_failure(event)


def _why_nothing(refusal: str, ended: Any, reasoned: bool) -> tuple[CallCode, str]:
    reason = read_finish_reason(ended, unknown="unknown")
    if refusal or reason == "refusal":
        return "refused", f"the model refused: {refusal[:_SHOWN_CHARS] or 'it gave no reason'}"
    if reason == "content_filter":
        return "refused", "the endpoint's content filter took the whole answer"
    if reason == "length":
        spent = "thinking" if reasoned else "nothing visible"
        return "truncated", f"max_tokens went into {spent}: no answer was left; raise max_tokens"
    if reason == "unknown":
        return "empty", f"the model answered nothing ({str(ended)[:_SHOWN_CHARS]})"
    return "empty", "the model answered nothing"


def _refuse_error(holder: Mapping[str, Any], data: Mapping[str, Any], *, shown: bool = False) -> None:
    """Fail on an error object in a 200, in a choice or in a stream.

    Once text was shown it cannot be asked for again, and what it cost is no longer nothing.
    """
    error = holder.get("error")
    if not error:
        return
    from fusiontools.llm.failures import name_failure

    code = error.get("code") if isinstance(error, dict) else holder.get("code")
    # Some servers write the number as text.
    status = int(code) if isinstance(code, int | str) and _HTTP_FAILURE.fullmatch(str(code)) else 502
    failed = name_failure(status, {"code": code, "error": error}, {})
    failed.usage, failed.cost_usd = usage_of(data)  # type: ignore[assignment]
    if shown:
        failed.retryable, failed.status = False, None
    raise failed


def _cost_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    usage, cost = usage_of(data)
    return {"usage": usage, "cost_usd": cost}


def _content(said: Any) -> tuple[str, str]:
    """Return the text of a content and the thoughts in it, which may come in parts.

    Raises:
        TypeError: it is of a kind that nobody knows, and would be lost.
    """
    if said is None or isinstance(said, str):
        return said or "", ""
    if not isinstance(said, list | dict):
        raise TypeError("content is text or parts")
    texts, thoughts = [], []
    for part in said if isinstance(said, list) else [said]:
        if isinstance(part, dict) and part.get("type") in ("thinking", "reasoning"):
            thoughts.append(_plain(part.get("thinking") or part.get("text")))
        else:
            texts.append(_plain(part))
    return "".join(texts), "".join(thoughts)


def _plain(said: Any) -> str:
    """Return a text, or the texts of parts."""
    if isinstance(said, list):
        return "".join(map(_plain, said))
    if isinstance(said, dict):
        said = said.get("text")
    return said if isinstance(said, str) else ""


def _proposed(message: Mapping[str, Any]) -> list[Any]:
    """Return the tool calls of a message, or the one call of the older form."""
    if calls := message.get("tool_calls"):
        if not isinstance(calls, list):
            raise TypeError("tool calls are a list")
        return calls
    return [{"index": 0, "function": older}] if (older := message.get("function_call")) else []
