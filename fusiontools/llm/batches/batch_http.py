"""The way to a provider's batch API: JSON there and back, a file there, lines back.

Beside `llm/http.py`, whose one request is a chat completion: here are uploads of 200 MB and downloads of more, but few
requests in a minute, so a library's client does all of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from fusiontools.errors import CallFailed, __version__
from fusiontools.llm.failures import read_failure
from fusiontools.llm.key_mask import KeyMask, current_key
from fusiontools.record import jsonl

if TYPE_CHECKING:
    from fusiontools.config.models import Endpoint

#: A provider that takes longer between two bytes is not there.
_SILENT_S = 300.0
_MOST_BYTES, _LONGEST_LINE_BYTES = 1 << 30, 256 << 20


class BatchHttp:
    """One provider's API.

    Args:
        base_url: what paths begin with, unless they are whole URLs there.
        key_header: the header that carries the key, and what stands before the key in it.
    """

    def __init__(
        self, endpoint: Endpoint, base_url: str, key_header: tuple[str, str], headers: Mapping[str, str] | None = None
    ) -> None:
        self._endpoint, self._base_url, self._key_header = endpoint, base_url.rstrip("/"), key_header
        self._headers = {"user-agent": f"fusiontools/{__version__}", **(headers or {}), **endpoint.headers}
        self._client: httpx.AsyncClient | None = None

    async def get(self, path: str, **params: Any) -> Any:
        """Return what is there.

        Raises:
            CallFailed: what the provider says instead.
        """
        return await self._ask("GET", path, params=params)

    async def post(self, path: str, body: Any = None, **more: Any) -> Any:
        """Return what the provider answers to a body, once: it may have acted although no answer came.

        Raises:
            CallFailed: it refuses, or nobody knows what it has done.
        """
        if body is not None:
            more = {"content": body if isinstance(body, bytes) else jsonl.dumps(body), **more}
            more["headers"] = {"content-type": "application/json", **more.get("headers", {})}
        return await self._ask("POST", path, **more)

    async def upload(self, path: str, file: Path, fields: Mapping[str, str]) -> Any:
        """Send a file as a form, with what stands beside it."""
        with file.open("rb") as opened:
            return await self._ask("POST", path, data=fields, files={"file": (file.name, opened, "application/jsonl")})

    async def start(self, path: str, body: Any, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers of the answer to a body."""
        mask, response = await self._send("POST", path, content=jsonl.dumps(body), headers=headers)
        await self._content(response, mask)
        return response.headers

    async def lines(self, path: str, **params: Any) -> AsyncIterator[bytes]:
        """Yield the lines of a file there, those that are not blank.

        Raises:
            CallFailed: it cannot be read to its end.
        """
        mask, response = await self._send("GET", path, params=params)
        rest = b""
        try:
            async for chunk in response.aiter_bytes():
                *ended, rest = (rest + chunk).split(b"\n")
                for line in ended:
                    if line.strip():
                        yield mask.hide(line)
                if len(rest) > _LONGEST_LINE_BYTES:
                    raise CallFailed("bad_response", f"a line of more than {_LONGEST_LINE_BYTES >> 20} MiB")
        except httpx.HTTPError as error:
            raise self._failed(error, mask) from error
        finally:
            await response.aclose()
        if rest.strip():
            yield mask.hide(rest)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _ask(self, method: str, path: str, **more: Any) -> Any:
        mask, response = await self._send(method, path, **more)
        content = await self._content(response, mask)
        try:
            return jsonl.loads(content) if content.strip() else {}
        except ValueError as error:
            raise CallFailed("bad_response", f"{self._base_url} answered no JSON", retryable=True) from error

    async def _content(self, response: httpx.Response, mask: KeyMask) -> bytes:
        content = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _MOST_BYTES:
                    raise CallFailed("bad_response", f"{self._base_url} sent more than {_MOST_BYTES >> 20} MiB")
        except httpx.HTTPError as error:
            raise self._failed(error, mask) from error
        finally:
            await response.aclose()
        return mask.hide(bytes(content))

    async def _send(self, method: str, path: str, **more: Any) -> tuple[KeyMask, httpx.Response]:
        """Return the answer's head, where the provider agrees, and what hides the key in the rest."""
        mask = KeyMask(await current_key(self._endpoint))
        name, before = self._key_header
        own = {name: before + mask.of} if mask.of else {}
        self._client = self._client or httpx.AsyncClient(timeout=httpx.Timeout(_SILENT_S, connect=15.0))
        url = path if path.startswith(self._base_url) else self._base_url + path
        try:
            headers = {**self._headers, **own, **more.pop("headers", {})}
            request = self._client.build_request(method, url, headers=headers, **more)
            response = await self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._failed(error, mask) from error
        if response.status_code < 300:
            return mask, response
        said = await self._content(response, mask)
        failure = read_failure(response.status_code, said, dict(response.headers))
        failure.message += f" ({method} {url.partition('?')[0]})"
        raise failure

    def _failed(self, error: Exception, mask: KeyMask) -> CallFailed:
        reason = mask.hide_in(str(error)) or type(error).__name__
        code, what = ("connect", "cannot be reached") if isinstance(error, httpx.ConnectError) else ("connection", "broke off")  # fmt: skip  # noqa: E501
        return CallFailed(code, f"{self._base_url} {what}: {reason}", retryable=True)  # type: ignore[arg-type]
