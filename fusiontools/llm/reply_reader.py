"""Read the answer of an endpoint from its bytes, whole or as they come, and hand on what is to be seen of it.

One reader serves bodies and streams, whichever was asked for. What its objects say is `openai_reply`'s business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from fusiontools.errors import CallFailed
from fusiontools.llm.completion import Completion, Delta, OnDelta
from fusiontools.llm.events import DONE, EventReader
from fusiontools.llm.openai_reply import Reply, read_plain

#: Takes a piece of a body.
OnBytes = Callable[[bytes], object]
#: Puts what another API answers into the shape of OpenAI; None is an event that says nothing.
Translate = Callable[[dict[str, Any]], dict[str, Any] | None]

#: What reading a value raises that is not of the kind that it must be.
_ILL_FORMED = (AttributeError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError)


def read_completion(body: bytes, model: str, translate: Translate | None = None) -> Completion:
    """Read a plain answer that is here as a whole.

    Args:
        translate: for an endpoint that does not speak OpenAI.

    Raises:
        CallFailed: no JSON, an error in a 200, no choices, nothing visible.
    """
    if translate is None and (plain := read_plain(body, model)) is not None:
        return plain
    return ReplyReader(model, translate).read(body)


class ReplyReader:
    """One answer, whole or in pieces: comments, keep-alives, empty choices and a missing `[DONE]` are fine.

    A stream that ends without a finish reason was cut off.

    Args:
        translate: for an endpoint that does not speak OpenAI.
        hear: told each piece of the visible answer; what it is told is, joined, the answer's content, unless the model
            closes a thought that it never opened: `closes_unopened` tells of that. None where nobody sees the pieces:
            what has been shown cannot be asked for again.
        started: since when the first piece is waited for, in monotonic seconds.
        waits: whether the model is known to close thoughts that it has not opened.
        tools: the names that may be called, where that is known.
    """

    def __init__(
        self,
        model: str,
        translate: Translate | None = None,
        hear: OnDelta | None = None,
        *,
        started: float = 0.0,
        waits: bool = False,
        tools: Collection[str] = (),
    ) -> None:
        self._translate, self._hear, self._started = translate, hear, started
        self._events = EventReader(_shown)
        self._reply = Reply(model, streamed=hear is not None, waits=waits, tools=tools)
        #: Seconds until a piece was handed on; None while none was.
        self.ttft_s: float | None = None

    @property
    def closes_unopened(self) -> bool:
        """Whether the model closed a thought that it had not opened."""
        return self._reply.closes_unopened

    def read(self, body: bytes) -> Completion:
        """Read an answer that is here as a whole."""
        self.feed(body)
        return self.finish()

    def feed(self, piece: bytes) -> None:
        """Add bytes, and hand on what they bring of the visible answer: text, pieces of tool calls."""
        hear, reply = self._hear, self._reply
        for event in self._events.feed(piece):
            deltas = reply.add_text(event) if type(event) is str else self._take(event)
            if deltas and hear is not None:
                if self.ttft_s is None:
                    self.ttft_s = round(time.monotonic() - self._started, 4)
                for delta in deltas:
                    hear(delta)

    def finish(self) -> Completion:
        """Return the completion, and hand on what of it was not; or fail by name where there is none."""
        left: list[Delta] = []
        for event in self._events.finish():
            left += self._reply.add_text(event) if type(event) is str else self._take(event)
        events = self._events
        if not (events.found or events.streams) and (events.start.strip() or self._hear is None):
            shown = _shown(events.start)
            raise CallFailed("bad_response", f"the endpoint did not answer JSON: {shown}", retryable=True)
        try:
            completion, unsaid = self._reply.finish(self.ttft_s, cut=events.streams or not events.found)
        except _ILL_FORMED as error:
            raise _ill_formed() from error
        if self._hear is not None:
            for delta in (*left, *unsaid):
                self._hear(delta)
        return completion

    def _take(self, event: dict[str, Any]) -> list[Delta]:
        reply = self._reply
        try:
            said = event if event is DONE or self._translate is None else self._translate(event)
            if said is None:
                return []
            if text := reply.text_alone_in(said):
                if said is event:
                    self._events.learn(text, reply.text_alone_in)
                return reply.add_text(text)
            return reply.take(said)
        except _ILL_FORMED as error:
            raise _ill_formed() from error


def _ill_formed() -> CallFailed:
    """Return the failure of a value that is not of the kind that it must be: what an endpoint sends is not ours."""
    what = "a value in it is not of the kind that it must be"
    return CallFailed("bad_response", f"the endpoint's answer cannot be read: {what}")


def _shown(body: bytes) -> str:
    # Most runs have no failure to put in words.
    from fusiontools.llm.failures import excerpt

    return excerpt(body)
