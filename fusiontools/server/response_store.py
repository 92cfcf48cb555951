"""Responses that are kept, so that a client's next turn can name them instead of sending them again.

They are kept in memory, for each key its own, for some hours and up to some bytes: the one that was used longest ago
makes room. So a restart forgets them, and several processes cannot share them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cachetools import TTLCache

from fusiontools.record import jsonl
from fusiontools.server.protocols.exchange import ApiError
from fusiontools.server.protocols.responses_request import flag_at, refuse, text_at

if TYPE_CHECKING:
    from fusiontools.server.jobs import Job

#: An item's id names the response that it is in.
_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{32})_[0-9]+")

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """A request for a response with all that it names put into it.

    Args:
        body: the request, which needs no store any more.
        items: the whole conversation that is to be answered.
        keeps: whether its response is to be kept.
        background: whether the client does not wait.
        echo: what the response says of all this.
    """

    body: dict[str, Any]
    items: list[Any] = field(default_factory=list)
    keeps: bool = False
    background: bool = False
    echo: Mapping[str, Any] = field(default_factory=dict)


class ResponseStore:
    """Kept responses by key and id.

    Args:
        keep_h: for how many hours; 0 keeps none.
        most_bytes: how much is kept for each key.
        clock: seconds, rising.
    """

    def __init__(self, keep_h: float, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        #: Whether there is a store at all.
        self.keeps = keep_h > 0
        #: The jobs of responses that are under way, in the background, and what is said of each meanwhile.
        self.running: dict[tuple[str, str], tuple[Job, dict[str, Any]]] = {}
        self._keep_s, self._most_bytes, self._clock = keep_h * 3600, most_bytes, clock
        self._kept: dict[str, TTLCache[str, bytes]] = {}

    def put(self, caller: str, response: Mapping[str, Any], items: list[Any]) -> None:
        """Keep a response and what it answers; one that is too large by itself is not kept."""
        data = jsonl.dumps([response, items])
        if len(data) > self._most_bytes:
            return
        if caller not in self._kept:
            self._kept[caller] = TTLCache(self._most_bytes, self._keep_s, self._clock, getsizeof=len)
        self._kept[caller][response["id"]] = data

    def find(self, caller: str, response_id: str) -> tuple[dict[str, Any], list[Any]]:
        """Return a response and what it answers.

        Raises:
            ApiError: it is not kept, or not any more.
        """
        if (caller, response_id) in self.running:
            return self.running[caller, response_id][1], []
        data = self._kept[caller].get(response_id) if caller in self._kept else None
        if data is None:
            raise not_found(f"Response with id {response_id[:100]!r} not found.", "response_not_found", None)
        response, items = jsonl.loads(data)
        return response, items

    def delete(self, caller: str, response_id: str) -> None:
        """Forget a response; one that is under way is given up.

        Raises:
            ApiError: it is not kept.
        """
        self.find(caller, response_id)
        if running := self.running.pop((caller, response_id), None):
            running[0].task.cancel()
        elif caller in self._kept:
            del self._kept[caller][response_id]

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
        previous = body.get("previous_response_id")
        given = body.get("input")
        own = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
        echo = {"store": keeps, "background": background, "previous_response_id": previous}
        if not isinstance(own, list):
            return Turn(body, [], keeps, background, echo)
        items = [self._resolve(caller, item) for item in own]
        if previous is not None:
            items = self._conversation(caller, text_at(previous, "previous_response_id")) + items
        names = ("previous_response_id", "background", "store")
        read = {name: value for name, value in body.items() if name not in names}
        return Turn({**read, "input": items}, items, keeps, background, echo)

    def _conversation(self, caller: str, response_id: str) -> list[Any]:
        if (caller, response_id) in self.running:
            raise refuse("previous_response_id", f"{response_id[:100]!r} has not ended yet")
        try:
            response, items = self.find(caller, response_id)
        except ApiError:
            why = f"Previous response with id {response_id[:100]!r} not found."
            raise not_found(why, "previous_response_not_found", "previous_response_id") from None
        return [*items, *response["output"]]

    def _resolve(self, caller: str, item: Any) -> Any:
        """Return an item, found where it is but named."""
        if not (isinstance(item, dict) and isinstance(item.get("id"), str)):
            return item
        if item.get("type") != "item_reference" and item.keys() != {"id"}:
            return item
        named = _ITEM_ID.fullmatch(item["id"])
        try:
            response, _ = self.find(caller, f"resp_{named[1]}" if named else "")
            return next(kept for kept in response["output"] if kept["id"] == item["id"])
        except (ApiError, StopIteration):
            why = f"Item with id {item['id'][:100]!r} not found. Items are not persisted when `store` is set to false."
            raise not_found(why, "item_not_found", "input") from None


def not_found(message: str, code: str, param: str | None) -> ApiError:
    """Return the error for what is not kept, or not any more."""
    return ApiError(404, code, message, param)
