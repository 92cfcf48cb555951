"""What the members of one record's panel are writing: heard by whoever watches, who may cut one of them off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from fusiontools.errors import CallFailed

if TYPE_CHECKING:
    from fusiontools.llm.completion import Completion, Delta, OnDelta

#: Told of each piece of a member's text: the member's label, the layer, the piece; None where it begins anew.
OnText = Callable[[str, int, str | None], None]
#: Failures in the midst of a text after which it may be written anew, for nobody takes a draft for the answer.
_BROKEN_OFF = ("timeout", "connection", "upstream")


class MemberDraft:
    """Takes one member's text as it is written; unlike an answer, a draft may begin anew."""

    def __init__(self, label: str, layer: int, on_text: OnText) -> None:
        self._label, self._layer, self._on_text = label, layer, on_text
        self._heard = False

    def __call__(self, delta: Delta) -> None:
        self._heard = True
        if isinstance(delta, str) and delta:
            self._on_text(self._label, self._layer, delta)

    def may_begin_anew(self, failure: CallFailed) -> bool:
        """Return whether only what was heard already keeps the call from being made again."""
        return self._heard and failure.code in _BROKEN_OFF

    def begin_anew(self) -> None:
        """Forget what was heard, and let the listeners do so."""
        if self._heard:
            self._heard = False
            self._on_text(self._label, self._layer, None)


class Drafts:
    """The drafts of one record, by the member's label: `gpt`, `gpt#1`.

    Args:
        twice: whether a draft that is heard as the answer already is told as a draft too.
    """

    def __init__(self, on_text: OnText, *, twice: bool = True) -> None:
        self.twice = twice
        self._on_text = on_text
        self._writing: dict[str, asyncio.Future[Completion]] = {}
        self._stopped: set[str] = set()

    async def follow(self, label: str, layer: int, ask: Callable[[OnDelta], Awaitable[Completion]]) -> Completion:
        """Return what a member answers.

        Raises:
            CallFailed: as `ask`, or `stopped`.
        """
        writing = self._writing[label] = asyncio.ensure_future(ask(MemberDraft(label, layer, self._on_text)))
        try:
            return await writing
        except asyncio.CancelledError:
            if label not in self._stopped:
                raise
            raise CallFailed("stopped", "stopped by whoever asked") from None
        finally:
            self._stopped.discard(label)
            if self._writing.get(label) is writing:
                del self._writing[label]

    def stop(self, label: str) -> bool:
        """Cut a member off, socket and all; returns whether it was writing."""
        writing = self._writing.get(label)
        if writing is None or writing.done():
            return False
        self._stopped.add(label)
        writing.cancel()
        return True
