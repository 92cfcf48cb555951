"""Hide what must not leave before a request goes out, and put it back in the answer.

Each thing found (see `sensitive`) is replaced by a mark, `[EMAIL_1]`: the same one for the same text, in all calls of
one record, whoever is asked. Everything else stays byte for byte what it was. Every text of a request is looked at,
whatever it is called: messages, names, arguments and results of tools, descriptions, schemas. The journal's key and
what it keeps are made of the marks. An endpoint that the recipe trusts is sent the originals, and the journal is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import asdict, replace

from fusiontools.llm.completion import Backend, Completion, CompletionRequest, Delta, OnDelta, Thoughts
from fusiontools.llm.sensitive import Finder
from fusiontools.record import jsonl

MARK = re.compile(r"\[[A-Z][A-Z_]*_\d{1,9}\]")
#: What may become a mark when more of the text is there.
_BEGUN = re.compile(r"\[(?:[A-Z][A-Z_]{0,40}\d{0,9})?\Z")

#: What an answer holds beside its text and its calls.
_SAID_BESIDE = ("reasoning", "sources", "native", "reasoning_details")


class Marks:
    """The marks of one record: every text has one, and every mark one text."""

    def __init__(self, finder: Finder) -> None:
        self.finder = finder
        self._given: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def mark(self, label: str, text: str) -> str:
        """Return the mark of a text."""
        given = self._given.get(text)
        if given is None:
            self._counts[label] = self._counts.get(label, 0) + 1
            given = self._given[text] = f"[{label}_{self._counts[label]}]"
        return given


class Hidden:
    """What one request hides: made while its texts are gone through, and put back in its answer."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._originals: dict[str, str] = {}

    def hide(self, value: Any) -> Any:
        """Return JSON data with marks in all its texts, keys included; what holds nothing comes back as it is."""
        if isinstance(value, str):
            return self._hide_text(value)
        if isinstance(value, Mapping):
            pairs = [(key, self._hide_item(key, item)) for key, item in value.items()]
            same = all(new is old for (_, new), old in zip(pairs, value.values(), strict=True))
            named = {self._hide_text(key): item for key, item in pairs}
            return value if same and list(named) == list(value) else named
        if isinstance(value, Sequence) and not isinstance(value, bytes):
            items = [self.hide(item) for item in value]
            return value if all(new is old for new, old in zip(items, value, strict=True)) else items
        return value

    def restore_text(self, text: str, *, in_json: bool = False) -> str:
        """Return a text with the originals in the place of their marks; in JSON they are written as JSON says them."""
        if "[" not in text:
            return text
        write = _within_json if in_json else str
        return MARK.sub(lambda found: write(self._originals.get(found[0], found[0])), text)

    def restore(self, completion: Completion, *, in_json: bool = False) -> Completion:
        """Return an answer with the originals; `in_json` where its text is a JSON document."""
        content = self.restore_text(completion.content, in_json=in_json)
        return replace(completion, content=content, **self._rest(completion, self.restore_text, self._back))

    def cover(self, completion: Completion) -> Completion:
        """Return an answer with marks in the place of the originals that the request held."""
        content = self._covered(completion.content)
        return replace(completion, content=content, **self._rest(completion, self._covered, self._covered))

    def _rest(
        self, completion: Completion, change: Callable[[str], str], in_call: Callable[[str], str]
    ) -> dict[str, Any]:
        """Return all else that an answer says, changed: thoughts, sources, its own blocks, and calls."""
        changed = {name: _each_text(getattr(completion, name), change) for name in _SAID_BESIDE}
        calls = [{**call, "function": _each_text(call["function"], in_call)} for call in completion.tool_calls]
        return {**changed, "tool_calls": calls}

    def _hide_item(self, key: str, item: Any) -> Any:
        if key == "arguments" and isinstance(item, str):
            return self._hide_arguments(item)
        return self.hide(item)

    def _hide_arguments(self, text: str) -> str:
        """Hide in the arguments of a call: JSON may spell an address so that no pattern knows it."""
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            return self._hide_text(text)
        hidden = self.hide(parsed)
        return self._hide_text(text) if hidden is parsed else json.dumps(hidden, ensure_ascii=False)

    def _hide_text(self, text: str) -> str:
        spans = self._marks.finder.spans(text)
        if not spans:
            return text
        pieces, at = [], 0
        for start, end, label in spans:
            mark = self._marks.mark(label, text[start:end])
            self._originals[mark] = text[start:end]
            pieces += [text[at:start], mark]
            at = end
        return "".join([*pieces, text[at:]])

    def _covered(self, text: str) -> str:
        marks = {original: mark for mark, original in self._originals.items()}
        if not marks:
            return text
        longest_first = sorted(marks, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)), lambda found: marks[found[0]], text)

    def _back(self, text: str) -> str:
        return self.restore_text(text, in_json=True)


class HiddenRequest(CompletionRequest, frozen=True, kw_only=True):
    """A request in marks, with what it hides.

    Args:
        asked: the request as it was.
    """

    hidden: Hidden
    asked: CompletionRequest

    def restore(self, completion: Completion) -> Completion:
        """Return what came back for it with the originals in the place of marks."""
        return self.hidden.restore(completion, in_json=wants_json(self.params))


def hide_request(request: CompletionRequest, marks: Marks) -> HiddenRequest:
    """Return the request in marks."""
    hidden = Hidden(marks)
    kept = asdict(request)
    hides = {"messages": hidden.hide(request.messages), "params": hidden.hide(request.params)}
    return HiddenRequest(**kept | hides, hidden=hidden, asked=request)


def wants_json(params: Mapping[str, Any]) -> bool:
    """Return whether the answer's text is to be a JSON document."""
    form = params.get("response_format")
    return isinstance(form, Mapping) and form.get("type") in ("json_object", "json_schema")


class Revealing:
    """A backend that is sent the originals, for an endpoint that is trusted; what it keeps of the answer is covered."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def complete(self, request: CompletionRequest, on_delta: OnDelta | None = None) -> Completion:
        """Ask with the request as it was."""
        assert isinstance(request, HiddenRequest)  # noqa: S101 - nothing else is revealed
        completion = await self._backend.complete(replace(request.asked, model=request.model), on_delta)
        return request.hidden.cover(completion)

    async def aclose(self) -> None:
        """Close the backend."""
        await self._backend.aclose()


class Restorer:
    """Puts originals back in a text that comes in pieces, of which a mark may begin in one and end in another."""

    def __init__(self, hidden: Hidden, *, in_json: bool = False) -> None:
        self._hidden, self._in_json = hidden, in_json
        self._rest = ""

    def take(self, text: str) -> str:
        """Return what can be shown now."""
        text = self._rest + text
        begun = _BEGUN.search(text, max(0, len(text) - 64))
        at = begun.start() if begun else len(text)
        self._rest = text[at:]
        return self._hidden.restore_text(text[:at], in_json=self._in_json)

    def finish(self) -> str:
        """Return what was held back, and was no mark."""
        rest, self._rest = self._rest, ""
        return rest


class RestoringDeltas:
    """Puts originals back in a stream of text and of calls."""

    def __init__(self, hidden: Hidden, on_delta: OnDelta, *, in_json: bool) -> None:
        self._hidden, self._on_delta = hidden, on_delta
        self._text = Restorer(hidden, in_json=in_json)
        self._calls: dict[Any, Restorer] = {}

    def take(self, delta: Delta) -> None:
        """Hand a piece on."""
        if isinstance(delta, str):
            if shown := self._text.take(delta):
                self._on_delta(shown)
        elif isinstance(delta, Thoughts):
            self._on_delta(Thoughts(_each_text(delta.details, self._hidden.restore_text)))
        else:
            self._finish_text()
            self._on_delta([self._call(call) for call in delta])

    def finish(self) -> None:
        """Hand on what was held back."""
        self._finish_text()
        for index, restorer in self._calls.items():
            if rest := restorer.finish():
                self._on_delta([{"index": index, "function": {"arguments": rest}}])

    def _finish_text(self) -> None:
        if rest := self._text.finish():
            self._on_delta(rest)

    def _call(self, call: Mapping[str, Any]) -> Mapping[str, Any]:
        function = dict(call.get("function") or {})
        if isinstance(arguments := function.get("arguments"), str):
            index = call.get("index", 0)
            restorer = self._calls.setdefault(index, Restorer(self._hidden, in_json=True))
            function["arguments"] = restorer.take(arguments)
        if isinstance(name := function.get("name"), str):
            function["name"] = self._hidden.restore_text(name)
        return {**call, "function": function} if function else call


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Return JSON data with each text in it changed, but for the names of fields."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each_text(item, change) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_each_text(item, change) for item in value]
    return value


def _within_json(text: str) -> str:
    return jsonl.dumps(text).decode()[1:-1]
