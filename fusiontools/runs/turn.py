"""One turn of a conversation: run the chain for it, and keep what was bought and shown where a person stops it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from fusiontools.llm.client import Client
from fusiontools.llm.completion import Delta
from fusiontools.llm.ledger import Event
from fusiontools.record.sections import is_solo, with_error
from fusiontools.record.types import Call, Message, Record
from fusiontools.stages.runtime import Runtime, Stage

_STAGE = "chat"


def with_system_prompt(messages: list[Message], system: str | None) -> list[Message]:
    """Return the conversation with this system prompt in the place of its own; None leaves it as it is."""
    if system is None:
        return messages
    said = [message for message in messages if message.get("role") not in ("system", "developer")]
    return [{"role": "system", "content": system}, *said] if system else said


class ChatTurn(Struct):
    """A turn under way.

    Args:
        record: what is asked.
        show: takes the answer's text as it is written.
    """

    record: Record
    show: Callable[[Delta], None] | None = None
    calls: list[Call] = []
    _text: list[str] = []
    _reached: Record | None = None
    _writers: list[str] = []

    async def run(self, stage: Stage, client: Client, notify: Callable[[Event], None] | None = None) -> Record:
        """Return the record with its answer, or with its `error`."""

        def note(event: Event) -> None:
            if event.began:
                self._writers.append(event.label)
            if notify is not None:
                notify(event)

        runtime = Runtime(
            client,
            self._take if self.show is not None else None,
            on_call=self.calls.append,
            on_stage=self._note_stage,
            notify=note,
        )
        return await stage(self.record, runtime)

    def stopped(self) -> Record:
        """Return the turn as it stands after it was cancelled: with what was shown as its answer, where anything was.

        A later turn sends that on as the answer that it is; where nothing was shown, the question is not sent on.
        """
        reached: Any = {**(self._reached or self.record), "calls": list(self.calls)}
        text = "".join(self._text).strip()
        if "answer" not in reached and not text:
            return with_error(reached, _STAGE, "interrupted", "stopped before anything was written")
        if "answer" not in reached:
            by = "solo" if is_solo(reached) else "synth" if "panel" in reached else "panel"
            model = self._writers[-1] if self._writers else ""
            reached["answer"] = {"content": text, "by": by, "model": model, "finish_reason": "interrupted"}
        note = {"stage": _STAGE, "code": "interrupted", "detail": "stopped by the user; this is what had been shown"}
        reached["degraded"] = [*reached.get("degraded", []), note]
        return reached  # type: ignore[no-any-return]

    def _take(self, delta: Delta) -> None:
        if isinstance(delta, str):
            self._text.append(delta)
        if self.show is not None:
            self.show(delta)

    def _note_stage(self, _: str, record: Record) -> None:
        self._reached = record
