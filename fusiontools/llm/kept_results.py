"""What tools gave, in the journal of a client: found again under its rules of replay, like its calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusiontools.llm.completion import Completion, CompletionRequest

if TYPE_CHECKING:
    from fusiontools.llm.client import Client


@dataclass(frozen=True, slots=True)
class KeptResults:
    """A store of results over the journal of a client."""

    client: Client

    async def get(self, key: bytes) -> bytes | None:
        """Return what was kept under this key; None where nothing was, or nothing is to be replayed."""
        journal = self.client.journal
        if journal is None or not (self.client.replay or self.client.offline):
            return None
        found = journal.get(key)
        return None if found is None else found[0].content.encode()

    async def put(self, key: bytes, kept: bytes, name: str) -> None:
        """Keep what a tool of this name gave; returns when it is safe."""
        if self.client.journal is not None:
            request = CompletionRequest("tools", name, ())
            await self.client.journal.put(key, request, Completion(kept.decode(), name), None)
