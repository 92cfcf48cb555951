"""The bodies of calls that go into a job, and what is read of their answers: by the back end that makes them otherwise.

So a call in a job is what it would have been at once: the endpoint's quirks are kept to and learned, forms are held to,
our key is masked. Under the back end is a transport that reaches nobody: it takes the body, or plays an answer.
"""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import httpx
from msgspec.structs import replace

from fusiontools.errors import CallFailed
from fusiontools.llm.http import OPENAI, HttpBackend
from fusiontools.record import jsonl

if TYPE_CHECKING:
    from fusiontools.config.models import Endpoint
    from fusiontools.llm.completion import Backend, Completion, CompletionRequest

#: The answer that a call of this task gets; without one its body is taken.
_PLAYED: ContextVar[tuple[int, bytes] | None] = ContextVar("played", default=None)


class _Taken(Exception):
    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


class _Nobody(httpx.AsyncBaseTransport):
    """A transport that reaches nobody."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        played = _PLAYED.get()
        if played is None:
            raise _Taken(request.content)
        return httpx.Response(played[0], content=played[1], headers={"content-type": "application/json"})


class BatchLines:
    """The lines of jobs at one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        api = OPENAI
        if endpoint.api == "anthropic":
            from fusiontools.llm.anthropic import MESSAGES

            api = MESSAGES
        self._backend: Backend = HttpBackend(endpoint, _Nobody(), api)
        self._trusted = endpoint.trusted

    async def body(self, request: CompletionRequest) -> dict[str, Any]:
        """Return the body of a call, as the endpoint is known to want it now."""
        try:
            await self._complete(request, None)
        except _Taken as taken:
            body: dict[str, Any] = jsonl.loads(taken.body)
            return body
        raise AssertionError("nobody answers here")

    async def read(self, request: CompletionRequest, status: int, answer: bytes) -> Completion:
        """Return what an answer says.

        Raises:
            CallFailed: it is a refusal or no completion; `adapted` where the call would now go out differently.
        """
        return await self._complete(request, (status, answer))

    async def learn(self, request: CompletionRequest, sent: bytes, status: int, answer: bytes) -> bool:
        """Take the lesson of a refusal of a body; returns whether the call would now go out differently."""
        if digest(await self.body(request)) != sent:
            return True
        try:
            await self.read(request, status, answer)
        except CallFailed as failure:
            return failure.adapted
        return False

    async def _complete(self, request: CompletionRequest, played: tuple[int, bytes] | None) -> Completion:
        backend = self._backend
        if self._trusted and hasattr(request, "asked"):
            from fusiontools.llm.redact import Revealing

            backend = Revealing(backend)
        token = _PLAYED.set(played)
        try:
            completion = await backend.complete(request)
        finally:
            _PLAYED.reset(token)
        return replace(completion, latency_s=None)


def digest(body: dict[str, Any]) -> bytes:
    """Return what tells a body apart from others."""
    return hashlib.sha256(jsonl.canonical(body)).digest()[:8]
