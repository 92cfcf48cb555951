"""What carries a request: our own connections, or httpx's where the environment wants them or names a proxy.

`FUSION_TRANSPORT=httpx` takes httpx's transport for every call, as a proxy does that the environment names. The
same calls fail there in the same way, but two things hold over our own only: what a server sends beyond its answer is
not taken for the answer to the next call, and a TLS handshake that is given up leaves no socket behind.

httpx is loaded where it carries something: it takes as long as a fifth of all that a tool loads.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from fusiontools.errors import CallFailed
from fusiontools.llm.http1 import IDLE_S, ConnectError, Http1Transport, TransportError

if TYPE_CHECKING:
    import httpx


def transport_for(url: SplitResult) -> Http1Transport | httpx.AsyncBaseTransport:
    """Return what carries calls to this URL, as the environment wants it.

    Raises:
        CallFailed: the environment names a transport or a proxy that cannot be.
    """
    chosen, proxy = os.environ.get("FUSION_TRANSPORT", ""), _proxy_address(url)
    if chosen not in ("", "httpx"):
        raise CallFailed("connect", f"FUSION_TRANSPORT: {chosen!r} is unknown; `httpx` is what can be chosen")
    if proxy is None and not chosen:
        return Http1Transport(url)
    import httpx

    try:
        through = httpx.Proxy(proxy) if proxy else None
        # Certificates take 17 ms to read, so plain http has none. The calls in flight are bounded above.
        limits, verified = httpx.Limits(keepalive_expiry=IDLE_S), url.scheme == "https"
        return httpx.AsyncHTTPTransport(verify=verified, proxy=through, limits=limits)
    except (httpx.InvalidURL, ImportError, ValueError) as error:  # the second: SOCKS needs another package
        raise CallFailed("connect", f"the proxy that the environment names cannot be used: {error}") from error
    except OSError as error:
        raise ConnectError(f"the certificates to trust cannot be read: {error}") from error


def _proxy_address(url: SplitResult) -> str | None:
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    return None if proxy_bypass(url.hostname or "") else proxies.get(url.scheme) or proxies.get("all")


class HttpxBody:
    """The response of one of httpx's transports, as `Http1Response` is one of ours, whose failures it has."""

    def __init__(self, response: httpx.Response) -> None:
        self.status, self.headers, self.size = response.status_code, response.headers.raw, 0
        self._response = response
        if response.is_stream_consumed:  # what a transport has read already it has inflated, too
            self.headers = [(name, value) for name, value in self.headers if name.lower() != b"content-encoding"]

    @classmethod
    async def of(
        cls, transport: httpx.AsyncBaseTransport, url: str, headers: Mapping[str, str], content: bytes
    ) -> HttpxBody:
        """Post a body; returns when the response's head has come.

        Raises:
            TransportError: no head has come.
        """
        import httpx

        with _failing_as_ours():
            request = httpx.Request("POST", url, headers=headers, content=content)
            return cls(await transport.handle_async_request(request))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        response = self._response
        with _failing_as_ours():
            async for chunk in response.aiter_bytes() if response.is_stream_consumed else response.aiter_raw():
                self.size += len(chunk)
                yield chunk

    def at_hand(self) -> None:
        """Return nothing: nobody says how much has come."""

    async def each(self, take: Callable[[bytes], object]) -> None:
        """Hand on the body as it comes."""
        async for chunk in self:
            take(chunk)

    async def aclose(self) -> None:
        """Close it, read or not."""
        with _failing_as_ours():
            await self._response.aclose()


@contextmanager
def _failing_as_ours() -> Iterator[None]:
    """Let a failure of httpx be one of our own transport."""
    import httpx

    try:
        yield
    except (httpx.RequestError, httpx.StreamError, httpx.InvalidURL) as error:
        unsent = (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.ProxyError,
            httpx.LocalProtocolError,
            httpx.InvalidURL,
        )
        ours = ConnectError if isinstance(error, unsent) else TransportError
        raise ours(str(error) or type(error).__name__) from error
