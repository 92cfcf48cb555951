"""A backend that makes no call: it answers every request with filler, to see which calls a chain would make.

Where a reply has a form, it says what makes a chain go on to the end: responses do not agree, and the question is
worth a fusion. `DryRunAgreed` says the opposite.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from fusiontools.llm.completion import Completion, CompletionRequest, OnDelta
from fusiontools.llm.prices import estimate_tokens
from fusiontools.llm.rewrite import function_of
from fusiontools.record import jsonl
from fusiontools.record.sections import text_of

if TYPE_CHECKING:
    from fusiontools.record.types import ToolCall

_LETTERS = [chr(code) for code in range(ord("A"), ord("Z") + 1)]
#: Room for a short answer and no more.
_FEW_TOKENS = 64
_REPLIES: dict[str, Any] = {
    "ranking": _LETTERS,
    "consensus": ["-"],
    "best": "A",
    "better": "A",
    "agree": False,
    "decision": "fuse",
}
_AGREED: dict[str, Any] = {**_REPLIES, "agree": True, "decision": "solo"}


class DryRun:
    """Answers with filler.

    Args:
        completion_tokens: how long an answer is taken to be; a smaller `max_tokens` bounds it.
        tools: the tools that are called as long as they may be.
    """

    _replies = _REPLIES

    def __init__(self, completion_tokens: int, tools: Collection[str] = ()) -> None:
        self._tokens = completion_tokens
        self._tools = tools
        self._asked = 0

    async def complete(self, request: CompletionRequest, on_delta: OnDelta | None = None) -> Completion:
        """Return the filler, with the tokens that the request would take."""
        self._asked += 1
        tokens = min(self._tokens, request.params.get("max_tokens") or self._tokens)
        calls = self._calls(request)
        return Completion(
            content="" if calls else self._reply(request, tokens),
            model=request.model,
            finish_reason="tool_calls" if calls else "stop",
            tool_calls=calls,
            usage={
                "prompt_tokens": estimate_tokens(request.messages),
                "completion_tokens": tokens,
                "cached_tokens": 0,
                "reasoning_tokens": 0,
            },
        )

    async def aclose(self) -> None:
        """Nothing is open."""

    def _calls(self, request: CompletionRequest) -> list[ToolCall]:
        if request.params.get("tool_choice") == "none":
            return []
        tools = request.params.get("tools")
        names = [function_of(tool).get("name") for tool in tools] if isinstance(tools, list) else []
        # No two of them are equal, or the second would not be run.
        function: Any = {"name": next((name for name in names if isinstance(name, str) and name in self._tools), None)}
        function["arguments"] = f'{{"nth": {self._asked}}}'
        return [{"id": f"call_{self._asked}", "type": "function", "function": function}] if function["name"] else []

    def _reply(self, request: CompletionRequest, tokens: int) -> str:
        match request.params.get("response_format"):
            case {"json_schema": {"schema": {"properties": dict(wanted)}}} if wanted:
                return jsonl.dumps(
                    {name: self._replies.get(name, _empty(kind)) for name, kind in wanted.items()}
                ).decode()
        return self._text(request, tokens)

    def _text(self, request: CompletionRequest, tokens: int) -> str:
        # No two of them share a word, or the panel would seem to agree.
        word = f"w{self._asked} "
        chars = tokens * 3.5
        worked = [len(text_of(message)) for message in request.messages if message.get("role") == "assistant"]
        if worked and tokens <= _FEW_TOKENS:
            # Who is shown short answers, and has room for one, gives one.
            chars = min(chars, max(worked))
        return word * max(1, int(chars / len(word)))


class DryRunAgreed(DryRun):
    """Answers all alike and shortly: a chain that goes by what comes makes the fewest calls."""

    _replies = _AGREED

    def _text(self, request: CompletionRequest, tokens: int) -> str:
        return "Yes."


def _empty(kind: Any) -> Any:
    return [] if isinstance(kind, dict) and kind.get("type") == "array" else ""
