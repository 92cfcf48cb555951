"""Responses that are kept, so that a client's next turn can name them instead of sending them again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.server.conversations import Conversations
from fusiontools.server.kept_values import KeptValues
from fusiontools.server.protocols.exchange import ApiError, ChatRequest
from fusiontools.server.protocols.responses_request import flag_at, refuse, text_at

if TYPE_CHECKING:
    from fusiontools.server.jobs import Exchange
    from fusiontools.server.request import Send
    from fusiontools.server.streaming import Stream

#: An item's id names the response that it is in.
_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{32})_[0-9]+")
#: What of a request is read here.
_NAMES = ("previous_response_id", "conversation", "background", "store")

Item = dict[str, Any]


class Turn(Struct, frozen=True):
    """A request for a response with all that it names put into it.

    Args:
        body: the request, which needs no store any more.
        items: the whole conversation that is to be answered.
        own: the last of them: those that the request brought along.
        conversation: to which the turn is added; None for none.
        keeps: whether its response is to be kept.
        background: whether the client does not wait.
        echo: what the response says of all this.
    """

    body: dict[str, Any]
    items: list[Any] = []
    own: list[Any] = []
    conversation: str | None = None
    keeps: bool = False
    background: bool = False
    echo: Mapping[str, Any] = {}


class UnderWay(Protocol):
    """A response that is being made, whoever listens, and what is shown of it meanwhile."""

    @property
    def exchange(self) -> Exchange: ...

    @property
    def begun(self) -> dict[str, Any]: ...

    def stream(self, send: Send, after: int) -> Stream: ...


class ResponseStore:
    """Kept responses and conversations, by key and id.

    Args:
        keep_h: for how many hours; 0 keeps none.
        most_bytes: how much is kept for each key.
        clock: seconds, rising.
    """

    def __init__(self, keep_h: float, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        #: Whether there is a store at all.
        self.keeps = keep_h > 0
        #: The responses that are under way, in the background.
        self.running: dict[tuple[str, str], UnderWay] = {}
        self._kept = KeptValues(keep_h * 3600, most_bytes, clock)
        self.conversations = Conversations(self._kept)

    def put(self, caller: str, response: Mapping[str, Any], items: list[Any]) -> None:
        """Keep a response and what it answers; one that is too large by itself is not kept."""
        self._kept.put(caller, response["id"], [response, items])

    def keep_stream(self, caller: str, response_id: str, said: bytes) -> None:
        """Keep the stream of a response too, so that it can be read again."""
        self._kept.put(caller, _stream_name(response_id), said.decode())

    def find_stream(self, caller: str, response_id: str) -> bytes | None:
        """Return the stream of a response; None where it has none that is kept."""
        said = self._kept.get(caller, _stream_name(response_id))
        return None if said is None else said.encode()

    def find(self, caller: str, response_id: str) -> tuple[dict[str, Any], list[Any]]:
        """Return a response and what it answers.

        Raises:
            ApiError: it is not kept, or not any more.
        """
        if (caller, response_id) in self.running:
            return self.running[caller, response_id].begun, []
        found = self._kept.get(caller, response_id) if response_id.startswith("resp_") else None
        if not isinstance(found, list):
            raise not_found(f"Response with id {response_id[:100]!r} not found.", "response_not_found", None)
        response, items = found
        return response, items

    def delete(self, caller: str, response_id: str) -> None:
        """Forget a response; one that is under way is given up.

        Raises:
            ApiError: it is not kept.
        """
        self.find(caller, response_id)
        if running := self.running.pop((caller, response_id), None):
            running.exchange.job.task.cancel()
        self._kept.delete(caller, response_id)
        self._kept.delete(caller, _stream_name(response_id))

    def open_turn(self, caller: str, body: dict[str, Any]) -> Turn:
        """Return a request with what it names in place of the names.

        Raises:
            ApiError: something that it names is not kept.
        """
        if not self.keeps:
            return Turn(body)  # whoever reads it refuses what needs a store
        keeps = flag_at(True if body.get("store") is None else body["store"], "store")
        background = flag_at(body.get("background") or False, "background")
        if background and not keeps:
            raise refuse("background", "needs `store`: who does not wait asks later for what was kept")
        previous, conversation = body.get("previous_response_id"), _read_conversation(body)
        given = body.get("input")
        own = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
        echo = {"store": keeps, "background": background, "previous_response_id": previous}
        if conversation is not None:
            echo["conversation"] = {"id": conversation}
            own = [] if own is None else own
        if not isinstance(own, list):
            return Turn(body, [], keeps=keeps, background=background, echo=echo)
        before: list[Any] = []
        if conversation is not None:
            before = self.conversations.require_room(caller, conversation, own)
        elif previous is not None:
            before = self._answered(caller, text_at(previous, "previous_response_id"))
        own = [self._resolve(caller, item, before) for item in own]
        read = {name: value for name, value in body.items() if name not in _NAMES}
        return Turn({**read, "input": before + own}, before + own, own, conversation, keeps, background, echo)

    def _answered(self, caller: str, response_id: str) -> list[Any]:
        """Return the conversation that a response ends."""
        if (caller, response_id) in self.running:
            raise refuse("previous_response_id", f"{response_id[:100]!r} has not ended yet")
        try:
            response, items = self.find(caller, response_id)
        except ApiError:
            why = f"Previous response with id {response_id[:100]!r} not found."
            raise not_found(why, "previous_response_not_found", "previous_response_id") from None
        return [*items, *response["output"]]

    def _resolve(self, caller: str, item: Any, before: list[Any]) -> Any:
        """Return an item, found where it is but named: in what was said before, or in a response."""
        if not (isinstance(item, dict) and isinstance(item.get("id"), str)):
            return item
        if item.get("type") != "item_reference" and item.keys() != {"id"}:
            return item
        named = _ITEM_ID.fullmatch(item["id"])
        try:
            response, _ = self.find(caller, f"resp_{named[1]}" if named else "")
            kept = response["output"]
        except ApiError:
            kept = []
        for each in [*before, *kept]:
            if isinstance(each, dict) and each.get("id") == item["id"]:
                return each
        why = f"Item with id {item['id'][:100]!r} not found. Items are not persisted when `store` is set to false."
        raise not_found(why, "item_not_found", "input")


def with_turn(request: ChatRequest, turn: Turn, store: ResponseStore, caller: str) -> ChatRequest:
    """Return a request that says of its turn what it has to, and whose answer is kept where that is wanted."""
    echo = {**request.echo, "response": {**request.echo["response"], **turn.echo}}
    if not (turn.keeps or turn.conversation):
        return replace(request, echo=echo)

    def keep(response: dict[str, Any]) -> None:
        if turn.keeps:
            store.put(caller, response, turn.items)
        if turn.conversation and response["status"] in ("completed", "incomplete"):
            store.conversations.add_turn(caller, turn.conversation, [*turn.own, *response["output"]])

    return replace(request, echo=echo, keep=keep)


def _stream_name(response_id: str) -> str:
    return f"stream of {response_id}"


def _read_conversation(body: Mapping[str, Any]) -> str | None:
    """Return the id of the conversation that a request names.

    Raises:
        ApiError: it is no name, or another turn is named too.
    """
    given = body.get("conversation")
    if given is None:
        return None
    where = "conversation"
    if isinstance(given, dict):
        given, where = given.get("id"), "conversation.id"
    conversation_id = text_at(given, where, empty=False)
    if body.get("previous_response_id") is not None:
        raise refuse("conversation", "cannot be said together with `previous_response_id`: each names what came before")
    return conversation_id


def not_found(message: str, code: str, param: str | None) -> ApiError:
    """Return the error for what is not kept, or not any more."""
    return ApiError(404, code, message, param)
