"""Keep a long conversation within what every model of a chain can read: earlier turns become a summary.

Reads   messages, params
Adds    compaction; changes messages: of what stood before the last turns a summary is left; calls
Calls   none while the conversation is short; else one completion, for a very long one a few, one after the other
Fails   never: where no summary comes, everything is sent as it is (`compact_failed`)

Where the lists do not know a window, the refusal of a conversation as too long says what it is: the same turn is then
made shorter and asked once more, and later ones are before they are asked.

Whoever keeps the conversation keeps its full text; a record has what was sent. The summary stands at the beginning of
the first turn that is left, because not every model may be told two things in a row by the same speaker. It is kept
for the next turn, which begins alike: only what has come since is summarised then, and only when there is no room.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import OrderedDict
from collections.abc import Sequence

from msgspec import Struct, field

from fusiontools.config.models import Endpoint, Model
from fusiontools.config.recipe import Compact, Recipe
from fusiontools.config.templates import load_template
from fusiontools.errors import CallFailed
from fusiontools.llm import prices
from fusiontools.llm.ledger import Ledger, Slot
from fusiontools.record import jsonl
from fusiontools.record.sections import text_of
from fusiontools.record.types import Message, Record
from fusiontools.stages import prompts
from fusiontools.stages.runtime import Runtime, Stage
from fusiontools.stages.verdicts import verdict_params, verdict_request, with_settings

STAGE = "compact"
#: What a window is taken for where no list knows it.
ASSUMED_WINDOW_TOKENS = 32_768
#: No window is so small that this would be too much; `over_tokens` is not smaller either.
_SURELY_SHORT = 256
#: Shares of the smallest window: how long a conversation may be, and how much of its end is left word for word. The
#: rest is for the answers, which a judge and a synthesizer read beside it.
_MOST, _LEFT = 0.5, 0.25
#: The share of the writer's window that is summarised at once, and how long a summary may be.
_AT_ONCE, _SUMMARY_TOKENS = 0.5, 800
#: How many summaries are remembered.
_REMEMBERED = 256
_BEGIN, _END = "[Earlier in this conversation, summarised by {model}:]", "[End of the summary.]"
_SUMMARY = re.compile(
    r"\[Earlier in this conversation, summarised by [^\n]*:\]\n.*?\n\[End of the summary\.\]\n*", re.DOTALL
)


def compacting(stage: Stage, compact: Compact, models: Sequence[Model], recipe: Recipe) -> Stage:
    """Return the stage for conversations of any length.

    Args:
        models: who reads the conversation; the smallest of their windows counts.
    """
    known = Summaries()
    writer = recipe.endpoints[compact.model.endpoint]
    #: How long the shortest conversation was that a model has refused as too long.
    refused_tokens: int | None = None

    async def shorten(record: Record, most: int, runtime: Runtime) -> Record:
        assumed = min(ASSUMED_WINDOW_TOKENS, refused_tokens or ASSUMED_WINDOW_TOKENS)
        return await _Compaction(record, compact.model, writer, most, assumed, known, runtime).run()

    async def run(record: Record, runtime: Runtime) -> Record:
        nonlocal refused_tokens
        if "error" in record or (tokens := _tokens(record)) <= _SURELY_SHORT:
            return await stage(record, runtime)
        # The list of windows takes its time to load; most conversations never need it.
        most = compact.over_tokens or int(_smallest_window(models, recipe) * _MOST)
        if refused_tokens is not None:
            most = min(most, int(refused_tokens * _MOST))
        runtime = runtime.timed()
        sent = await shorten(record, most, runtime) if tokens > most else record
        done = await stage(sent, runtime)
        new = done.get("calls", [])[len(record.get("calls", [])) :]
        if not any(call["status"] == "context_length" and call["stage"] != STAGE for call in new):
            return done
        refused_tokens = min(_tokens(sent), refused_tokens or _tokens(sent))
        if "error" not in done:
            return done
        again = await shorten({**record, "calls": done["calls"]}, int(refused_tokens * _MOST), runtime)
        return await stage(again, runtime) if "compaction" in again else {**done, "calls": again["calls"]}

    return run


def _tokens(record: Record) -> int:
    return prices.prompt_tokens(record["messages"], record.get("params", {}))


def _smallest_window(models: Sequence[Model], recipe: Recipe) -> int:
    windows = [prices.context_tokens(recipe.endpoints[model.endpoint], model) for model in models]
    return min((tokens for tokens in windows if tokens), default=ASSUMED_WINDOW_TOKENS)


class Summaries(Struct):
    """The summaries of how conversations begin, by the messages they stand for; the oldest make room."""

    _kept: OrderedDict[bytes, str] = field(default_factory=OrderedDict)

    def find(self, messages: Sequence[Message]) -> str | None:
        """Return the summary of exactly these messages."""
        return self._kept.get(_key(messages))

    def keep(self, messages: Sequence[Message], summary: str) -> None:
        """Keep a summary."""
        self._kept[_key(messages)] = summary
        if len(self._kept) > _REMEMBERED:
            self._kept.popitem(last=False)


def _key(messages: Sequence[Message]) -> bytes:
    return hashlib.sha256(jsonl.canonical(messages)).digest()


class _Compaction(Struct):
    """One conversation that is too long."""

    record: Record
    model: Model
    endpoint: Endpoint
    most_tokens: int
    assumed_window_tokens: int
    known: Summaries
    runtime: Runtime

    async def run(self) -> Record:
        messages = self.record["messages"]
        first = next((i for i, m in enumerate(messages) if m.get("role") not in ("system", "developer")), 0)
        told, said = messages[:first], messages[first:]
        turns = [i for i, message in enumerate(said) if message.get("role") == "user" and i > 0]
        if not turns:
            return self.record  # one turn alone is not made shorter
        for end in reversed(turns):
            if (summary := self.known.find(said[:end])) is not None:
                kept = [*told, *_begin_with(summary, said[end:], self.model.name)]
                if prices.prompt_tokens(kept, self.record.get("params", {})) <= self.most_tokens:
                    return self._with_messages(kept, end)
                break
        else:
            end, summary = 0, ""
        begun, cut = end, self._where_to_cut(said, turns)
        ledger = self.runtime.ledger(STAGE, self.record)
        try:
            summary = await self._summarise(summary or "", said[begun:cut], ledger)
        except CallFailed as failure:
            detail = f"{self.model.name}: {failure.message}; the conversation is sent as it is"
            note = {"stage": STAGE, "code": "compact_failed", "detail": detail}
            failed = {**self.record, "calls": [*self.record.get("calls", []), *ledger.calls]}
            return {**failed, "degraded": [*self.record.get("degraded", []), note]}  # type: ignore[typeddict-item]
        self.known.keep(said[:cut], summary)
        shorter = self._with_messages([*told, *_begin_with(summary, said[cut:], self.model.name)], cut)
        return {**shorter, "calls": [*self.record.get("calls", []), *ledger.calls]}

    def _where_to_cut(self, said: Sequence[Message], turns: Sequence[int]) -> int:
        """Return where the first turn begins that is left as it is: the last ones are, as far as there is room."""
        room = int(self.most_tokens * _LEFT / _MOST)
        fitting = [i for i in turns if prices.prompt_tokens(said[i:], {}) <= room]
        return min(fitting, default=turns[-1])

    def _with_messages(self, messages: list[Message], summarised: int) -> Record:
        params = self.record.get("params", {})
        before, after = (prices.prompt_tokens(each, params) for each in (self.record["messages"], messages))
        section = {"model": self.model.name, "messages": summarised, "tokens": before, "left_tokens": after}
        return {**self.record, "messages": messages, "compaction": section}  # type: ignore[typeddict-item]

    async def _summarise(self, summary: str, said: Sequence[Message], ledger: Ledger) -> str:
        """Return one summary of what an earlier one says and of what came after it."""
        window = prices.context_tokens(self.endpoint, self.model) or self.assumed_window_tokens
        at_once = int(window * _AT_ONCE)
        for piece in _pieces(said, at_once):
            before: list[Message] = [{"role": "summary so far", "content": summary}] if summary else []
            prompt = self._prompt([*before, *piece])
            model = with_settings(self.model, 0.0, min(_SUMMARY_TOKENS, window // 4))
            request = verdict_request(verdict_params(model), prompt, model, self.runtime)
            completion = await self.runtime.client.complete(request, model, ledger, Slot(model.name))
            summary = completion.content.strip()
        return summary

    def _prompt(self, said: Sequence[Message]) -> prompts.Prompt:
        sections = load_template("default")
        mark = prompts.mark_of(STAGE, self.record["id"], [text_of(message) for message in said])
        values = {"nonce": mark, "conversation": prompts.conversation(said)}
        system: Message = {"role": "system", "content": sections["compact system"]}
        return prompts.Prompt(
            [system, {"role": "user", "content": prompts.fill(sections["compact user"], values)}], mark
        )


def _pieces(said: Sequence[Message], at_once: int) -> list[list[Message]]:
    """Return the messages as texts in groups that can be read at once; a message that is too long is cut in pieces."""
    groups: list[list[Message]] = [[]]
    size = 0
    for message in said:
        for text in _texts(_as_text(message), at_once):
            tokens = prices.estimate_tokens([text])
            if groups[-1] and size + tokens > at_once:
                groups.append([])
                size = 0
            groups[-1].append(text)
            size += tokens
    return groups


def _as_text(message: Message) -> Message:
    """Return the message as text: what is attached to it is named, what it calls is written out."""
    content = message.get("content")
    parts = [part["type"] for part in content if part.get("type") != "text"] if isinstance(content, list) else []
    called = [call["function"] for call in message.get("tool_calls") or []]
    more = [f"(attached: {part})" for part in parts] + [f"(calls {c['name']}({c['arguments']}))" for c in called]
    return {"role": message.get("role", "user"), "content": "\n".join(filter(None, [text_of(message), *more]))}


def _texts(message: Message, at_once: int) -> list[Message]:
    text, tokens = text_of(message), prices.estimate_tokens([message])
    count = math.ceil(tokens / at_once)
    chars = math.ceil(len(text) / count)
    return [{**message, "content": text[i : i + chars]} for i in range(0, max(1, len(text)), chars or 1)]


def split_summary(text: str) -> tuple[str, str]:
    """Return the summary that a question begins with, and the question; the first is empty where there is none."""
    found = _SUMMARY.match(text)
    return (found[0], text[found.end() :]) if found else ("", text)


def _begin_with(summary: str, messages: Sequence[Message], name: str) -> list[Message]:
    """Return the messages with a summary before the text of the first one."""
    first, *rest = messages
    told = f"{_BEGIN.format(model=name)}\n{summary}\n{_END}\n\n"
    content = first.get("content")
    if isinstance(content, list):
        return [{**first, "content": [{"type": "text", "text": told}, *content]}, *rest]
    return [{**first, "content": told + (content or "")}, *rest]
