"""OpenAI's older completions: a prompt in place of messages, a text in place of a message.

Of several prompts each is a question of its own; `server.completions` takes them apart and puts the answers together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from fusiontools.llm.ledger import Spending
from fusiontools.server.protocols import sse
from fusiontools.server.protocols.chat import Chat, usage
from fusiontools.server.protocols.exchange import ApiError, ChatRequest, ChatResult, ResponseMeta, StreamStyle

#: How many prompts one request has at most: each is a panel of its own.
MOST_PROMPTS = 64
#: What the older API has and a chat has not, and why it is refused where it asks for something.
_REFUSALS = {
    "logprobs": "a fused answer has no probabilities",
    "suffix": "an answer comes after what was asked, not before what follows",
    "best_of": "one answer is fused from many responses; ask again for another one",
}


def prompts_of(body: Mapping[str, Any]) -> list[str]:
    """Return the prompts of a request.

    Raises:
        ApiError: there is none, or it is not text.
    """
    given = body.get("prompt")
    prompts = given if isinstance(given, list) else [given]
    if prompts and all(isinstance(prompt, int | list) for prompt in prompts):
        raise _refuse("prompt", "tokens are numbers of one model's alphabet: send text")
    if not 0 < len(prompts) <= MOST_PROMPTS:
        raise _refuse("prompt", f"should be 1 to {MOST_PROMPTS} texts, there are {len(prompts):,}")
    texts = [prompt for prompt in prompts if isinstance(prompt, str) and prompt]
    if len(texts) < len(prompts):
        wrong = next(i for i, prompt in enumerate(prompts) if not isinstance(prompt, str) or not prompt)
        where = f"prompt[{wrong}]" if isinstance(given, list) else "prompt"
        raise _refuse(where, "should be a text that is not empty")
    return texts


class Completions:
    """The protocol of `/v1/completions`, for one prompt."""

    def read(self, body: dict[str, Any]) -> ChatRequest:
        """Read a request with one prompt.

        Raises:
            ApiError: with 400 and the place of what is wrong.
        """
        [prompt] = prompts_of(body)
        echo = body.get("echo")
        if echo is not None and not isinstance(echo, bool):
            raise _refuse("echo", "should be true or false")
        older = ("prompt", "echo", "messages", "input", "tools", "tool_choice", *_REFUSALS)
        fields = {name: value for name, value in body.items() if name not in older}
        request = Chat().read({**fields, "messages": [{"role": "user", "content": prompt}]})
        for name, why in _REFUSALS.items():
            if body.get(name) is not None and not (name == "best_of" and body[name] == 1):
                refused = ApiError(400, "unsupported_parameter", f"`{name}` is not supported: {why}", name)
                request = replace(request, unanswerable=refused)
        return replace(request, echo={"prompt": prompt if echo else ""})

    def whole(self, request: ChatRequest, meta: ResponseMeta, result: ChatResult) -> dict[str, Any]:
        """Return a `text_completion`."""
        choice = _choice(0, request.echo["prompt"] + result.content, result.finish_reason)
        return {**_head(meta), "choices": [choice], "usage": usage(result.spent), "fusion": result.fusion}

    def writer(self, request: ChatRequest, meta: ResponseMeta, style: StreamStyle) -> CompletionsWriter:
        """Return what says a stream of chunks."""
        return CompletionsWriter(request, meta, style)

    def error(self, refused: ApiError) -> dict[str, Any]:
        """Return OpenAI's envelope."""
        return Chat().error(refused)


class CompletionsWriter(Struct):
    """Chunks and comments, nothing else.

    Args:
        index: which prompt is answered.
        ends: whether the stream ends with this answer.
        spent: what the answers before it took.
    """

    request: ChatRequest
    meta: ResponseMeta
    style: StreamStyle
    index: int = 0
    ends: bool = True
    spent: Spending = field(default_factory=Spending)

    def open(self) -> bytes:
        """Say the prompt, where it is to be repeated."""
        return self.text(self.request.echo["prompt"])

    def thoughts(self, details: Sequence[Mapping[str, Any]]) -> bytes:
        """Say nothing: there is no next turn here."""
        return b""

    def text(self, text: str) -> bytes:
        """Say a piece of the answer."""
        return self._chunk(text) if text else b""

    def calls(self, deltas: Sequence[Mapping[str, Any]]) -> bytes:
        """Say nothing: no tools are offered here."""
        return b""

    def progress(self, words: str) -> bytes:
        """Say what goes on."""
        return b"" if self.style.progress == "off" else sse.comment(words)

    def draft(self, text: str) -> bytes:
        """Say nothing: a completion has no thoughts."""
        return b""

    def alive(self) -> bytes:
        """Keep the line open."""
        if self.style.keepalive == "chunk":
            return self._chunk("")
        return sse.comment("alive") if self.style.keepalive == "comment" else b""

    def event(self, event: Mapping[str, Any]) -> bytes:
        """Say something richer, in an envelope that every client can read."""
        return self._chunk("", fusion=event)

    def close(self, result: ChatResult) -> bytes:
        """Say how it ended; after the last answer what all took, where that is wanted, and the end."""
        last = self._chunk("", result.finish_reason, fusion=result.fusion)
        if not self.ends:
            return last
        if self.request.says_usage:
            last += _frame({**_head(self.meta), "choices": [], "usage": usage(self.spent + result.spent)})
        return last + b"data: [DONE]\n\n"

    def broken(self, refused: ApiError, result: ChatResult | None) -> bytes:
        """Say the error in band; what was bought and can stand in comes with it."""
        fusion = {"fusion": {**result.fusion, "answer": result.content}} if result else {}
        return self._chunk("", "error", **Chat().error(refused), **fusion) + b"data: [DONE]\n\n"

    def _chunk(self, text: str, finish_reason: str | None = None, **more: Any) -> bytes:
        return _frame({**_head(self.meta), "choices": [_choice(self.index, text, finish_reason)], **more})


def put_together(bodies: Sequence[dict[str, Any]], spent: Spending) -> dict[str, Any]:
    """Return one body of the answers to several prompts; what each took and how it came about is in its choice."""
    choices = [
        {**body["choices"][0], "index": i, "usage": body["usage"], "fusion": body["fusion"]}
        for i, body in enumerate(bodies)
    ]
    whole = {name: value for name, value in bodies[0].items() if name != "fusion"}
    return {**whole, "choices": choices, "usage": usage(spent)}


def _head(meta: ResponseMeta) -> dict[str, Any]:
    return {"id": f"cmpl-{meta.id}", "object": "text_completion", "created": meta.created, "model": meta.model}


def _choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}


def _frame(data: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % sse.line(data)


def _refuse(where: str, why: str) -> ApiError:
    return ApiError(400, "invalid_request", f"{where}: {why}", where)
