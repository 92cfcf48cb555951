"""Conversations that are kept, so that a client's next turn can name one instead of sending what was said.

A conversation is a list of items of the Responses API. A turn that names it is answered with all of it before the
turn's own items; when its answer is whole, both are added.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from fusiontools.server.kept_values import KeptValues
from fusiontools.server.protocols.exchange import ApiError
from fusiontools.server.protocols.responses_request import refuse

_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}

Item = dict[str, Any]
Head = dict[str, Any]


class Conversations:
    """Conversations by caller and id."""

    def __init__(self, kept: KeptValues) -> None:
        self._kept = kept

    def create(self, caller: str, items: list[Item], metadata: dict[str, Any]) -> Head:
        """Return a new conversation with these items.

        Raises:
            ApiError: it is too large.
        """
        made = {"id": f"conv_{secrets.token_hex(16)}", "object": "conversation"}
        head = {**made, "created_at": int(time.time()), "metadata": metadata}
        self._put(caller, head, _with_ids(items, []))
        return head

    def find(self, caller: str, conversation_id: str) -> tuple[Head, list[Item]]:
        """Return a conversation and its items, in their order.

        Raises:
            ApiError: it is not kept, or not any more.
        """
        found = self._kept.get(caller, conversation_id) if conversation_id.startswith("conv_") else None
        if found is None:
            why = f"Conversation with id {conversation_id[:100]!r} not found."
            raise ApiError(404, "conversation_not_found", why, None)
        head, items = found
        return head, items

    def find_item(self, caller: str, conversation_id: str, item_id: str) -> Item:
        """Return an item of a conversation.

        Raises:
            ApiError: there is none.
        """
        _, items = self.find(caller, conversation_id)
        for item in items:
            if item["id"] == item_id:
                return item
        raise ApiError(404, "item_not_found", f"Item with id {item_id[:100]!r} not found.", None)

    def update(self, caller: str, conversation_id: str, metadata: dict[str, Any]) -> Head:
        """Set what a client notes of a conversation; returns the conversation."""
        head, items = self.find(caller, conversation_id)
        self._put(caller, {**head, "metadata": metadata}, items)
        return {**head, "metadata": metadata}

    def add(self, caller: str, conversation_id: str, items: list[Item]) -> list[Item]:
        """Add items at the end; returns them as they are kept.

        Raises:
            ApiError: there is no such conversation, or it would be too large.
        """
        head, before = self.find(caller, conversation_id)
        added = _with_ids(items, before)
        self._put(caller, head, before + added)
        return added

    def add_turn(self, caller: str, conversation_id: str, items: list[Item]) -> None:
        """Add a turn that was answered.

        Where there is no room for it the conversation is forgotten: with a turn less it would be another one, and
        nobody would know.
        """
        try:
            head, before = self.find(caller, conversation_id)
        except ApiError:
            return  # it was deleted meanwhile
        self._kept.put(caller, conversation_id, [head, before + _with_ids(items, before)])

    def require_room(self, caller: str, conversation_id: str, items: list[Item]) -> list[Item]:
        """Return the items of a conversation that a turn names, to which these can be added.

        Raises:
            ApiError: as `add`.
        """
        try:
            head, before = self.find(caller, conversation_id)
        except ApiError as unknown:
            raise ApiError(404, unknown.code, unknown.message, "conversation") from None
        if not self._kept.fits([head, before + items]):
            raise _too_large()
        return before

    def delete(self, caller: str, conversation_id: str) -> None:
        """Forget a conversation.

        Raises:
            ApiError: there is none.
        """
        self.find(caller, conversation_id)
        self._kept.delete(caller, conversation_id)

    def delete_item(self, caller: str, conversation_id: str, item_id: str) -> Head:
        """Take an item out of a conversation; returns the conversation.

        Raises:
            ApiError: there is none.
        """
        self.find_item(caller, conversation_id, item_id)
        head, items = self.find(caller, conversation_id)
        self._put(caller, head, [item for item in items if item["id"] != item_id])
        return head

    def _put(self, caller: str, head: Head, items: list[Item]) -> None:
        if not self._kept.fits([head, items]):
            raise _too_large()
        self._kept.put(caller, head["id"], [head, items])


def _too_large() -> ApiError:
    return refuse("conversation", "is larger than what is kept for one key (--store-mib)", "conversation_too_large")


def _with_ids(items: list[Item], before: list[Item]) -> list[Item]:
    """Return items as a client reads them: each with a kind and an id of its own, and content in parts."""
    taken = {item["id"] for item in before}
    named = []
    for item in items:
        kind = item.get("type") or "message"
        given = item.get("id")
        own = given if isinstance(given, str) and given and given not in taken else None
        read = {**item, "id": own or f"{_PREFIXES.get(kind, 'item')}_{secrets.token_hex(16)}", "type": kind}
        if kind == "message":
            read = {"status": "completed", **read, "content": _parts(item.get("content"), item.get("role"))}
        taken.add(read["id"])
        named.append(read)
    return named


def _parts(content: Any, role: Any) -> Any:
    if not isinstance(content, str):
        return content
    if role == "assistant":
        return [{"type": "output_text", "text": content, "annotations": [], "logprobs": []}]
    return [{"type": "input_text", "text": content}]
