"""HTTP as tools speak it: every hop through the guard of addresses, every answer bounded in bytes and time.

httpx follows redirects, reads proxies from the environment and decodes without a bound; none of that is used here.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Literal

import httpx
from msgspec import Struct

from fusiontools.errors import FusionError, __version__
from fusiontools.tools.addresses import AddressGuard, AddressRefused, plain_name

USER_AGENT = f"fusiontools/{__version__}"
_MOST_REDIRECTS = 5
_MOST_ADDRESSES = 4
_CONNECT_S = 5.0
_DECODED_AT_ONCE_BYTES = 1 << 20
#: Sees the address of a hop before anything is sent there; refuses by raising.
OnHop = Callable[[str], Awaitable[None]]


class FetchFailed(FusionError):
    """No answer came. `code`: refused (by our rules), timeout, connect, connection, bad_response."""

    code: Literal["refused", "timeout", "connect", "connection", "bad_response"]


class Fetched(Struct, frozen=True):
    """An answer, its body decoded.

    Args:
        url: where it came from in the end.
        headers: by lower-case names.
        cut: whether the body went on beyond the limit.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool = False

    def header(self, name: str) -> str:
        """Return a header's value, or nothing."""
        return self.headers.get(name, "")


class GuardedHttp:
    """Asks over HTTP what the guard lets through.

    Args:
        guard: says where requests may go.
        limit_bytes: how much of a body is read, decoded.
        wall_s: how long an answer may take, with all its hops.
    """

    def __init__(self, guard: AddressGuard, *, limit_bytes: int = 5 << 20, wall_s: float = 20.0) -> None:
        self._guard = guard
        self._limit_bytes = limit_bytes
        self._wall_s = wall_s
        self._transports: dict[bool, httpx.AsyncHTTPTransport] = {}

    async def __aenter__(self) -> GuardedHttp:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for transport in self._transports.values():
            await transport.aclose()

    async def get(self, url: str, headers: Mapping[str, str] | None = None, on_hop: OnHop | None = None) -> Fetched:
        """Get a page, following at most five redirects.

        Raises:
            FetchFailed: an address on the way is not allowed, or no answer came.
        """
        async with _within(self._wall_s):
            for _ in range(_MOST_REDIRECTS + 1):
                here = read_url(url)
                if on_hop is not None:
                    await on_hop(str(here))
                fetched = await self._exchange("GET", here, headers or {}, b"")
                location = fetched.header("location")
                if fetched.status not in (301, 302, 303, 307, 308) or not location:
                    return fetched
                url = _join(here, location)
            raise FetchFailed("bad_response", f"more than {_MOST_REDIRECTS} redirects")

    async def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes = b"") -> Fetched:
        """Make one request and follow nothing: what it carries was meant for this address alone.

        Raises:
            FetchFailed: as for `get`.
        """
        async with _within(self._wall_s):
            return await self._exchange(method, read_url(url), headers, content)

    async def _exchange(self, method: str, url: httpx.URL, headers: Mapping[str, str], content: bytes) -> Fetched:
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = await self._guard.addresses(url.host, port)
        except AddressRefused as error:
            raise FetchFailed("refused", f"{url}: {error.message}") from error
        except OSError as error:
            raise FetchFailed("connect", f"{url.host} cannot be resolved: {error}") from error
        for number, address in enumerate(addresses[:_MOST_ADDRESSES], start=1):
            request = _request_to(address, method, url, headers, content)
            try:
                return await self._read(request, url)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if number == len(addresses[:_MOST_ADDRESSES]):
                    raise FetchFailed("connect", f"cannot reach {url.host}: {_words(error)}") from error
            except (httpx.RequestError, httpx.InvalidURL) as error:
                raise FetchFailed("connection", f"{url.host} broke off: {_words(error)}") from error
        raise AssertionError("unreachable: the guard returns an address")

    async def _read(self, request: httpx.Request, url: httpx.URL) -> Fetched:
        response = await self._transport(url.scheme == "https").handle_async_request(request)
        try:
            headers = {name.lower(): value for name, value in response.headers.items()}
            body, cut = await _decoded(response.aiter_raw(), headers.get("content-encoding", ""), self._limit_bytes)
            return Fetched(str(url), response.status_code, headers, body, cut)
        finally:
            await response.aclose()

    def _transport(self, encrypted: bool) -> httpx.AsyncHTTPTransport:
        if encrypted not in self._transports:
            # Connections are not kept: they are told apart by their address, and two hosts may share one. What is
            # taken from the environment here are certificates, never a proxy; they are read only where they are needed.
            limits = httpx.Limits(max_keepalive_connections=0)
            self._transports[encrypted] = httpx.AsyncHTTPTransport(verify=encrypted, limits=limits)
        return self._transports[encrypted]


def read_url(url: str) -> httpx.URL:
    """Return an address that a tool may be given, without its fragment.

    Raises:
        FetchFailed: it is none, is not http or https, or carries a name or a password.
    """
    try:
        read = httpx.URL(url.strip())
    except (httpx.InvalidURL, TypeError) as error:
        raise FetchFailed("refused", f"{url[:200]!r} is no address: {error}") from error
    if read.scheme not in ("http", "https"):
        raise FetchFailed("refused", f"{url[:200]!r}: only http and https are fetched")
    if read.userinfo:
        raise FetchFailed("refused", f"{read.host}: an address with a name or a password in it is not fetched")
    if not plain_name(read.host):
        raise FetchFailed("refused", f"{url[:200]!r} names no host")
    if not 0 < (read.port or 80) < 65536:
        raise FetchFailed("refused", f"{url[:200]!r}: there is no such port")
    return read.copy_with(fragment=None)


def _join(here: httpx.URL, location: str) -> str:
    try:
        return str(here.join(location))
    except httpx.InvalidURL as error:
        raise FetchFailed("bad_response", f"{here.host} redirects to what is no address: {error}") from error


def _request_to(address: str, method: str, url: httpx.URL, headers: Mapping[str, str], content: bytes) -> httpx.Request:
    """Return the request to a checked address; Host, and the name in TLS, stay those of the URL."""
    sent = {
        "host": url.netloc.decode("ascii"),
        "user-agent": USER_AGENT,
        "accept": "*/*",
        "accept-encoding": "gzip, deflate",
        **headers,
    }
    # One time for each step of httpx, beside the wall clock around all of them.
    steps = {"connect": _CONNECT_S, "read": None, "write": None, "pool": None}
    extensions = {"sni_hostname": plain_name(url.host), "timeout": steps}
    host = f"[{address.partition('%')[0]}]" if ":" in address else address
    return httpx.Request(method, url.copy_with(host=host), headers=sent, content=content, extensions=extensions)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


@asynccontextmanager
async def _within(wall_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(wall_s):
            yield
    except TimeoutError:
        raise FetchFailed("timeout", f"no whole answer within {wall_s:g} s") from None


async def _decoded(chunks: AsyncIterator[bytes], encoding: str, limit: int) -> tuple[bytes, bool]:
    """Return the decoded body up to a limit, and whether it went on; never much more than the limit is in memory."""
    decoder = _decoder(encoding)
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        for part in decoder(chunk):
            parts.append(part)
            size += len(part)
            if size > limit:
                return b"".join(parts)[:limit], True
    return b"".join(parts), False


def _decoder(encoding: str) -> Callable[[bytes], Iterable[bytes]]:
    if encoding.lower() in ("", "identity"):
        return lambda chunk: (chunk,)
    if encoding.lower() in ("gzip", "x-gzip", "deflate"):
        return _Inflater().feed
    raise FetchFailed("bad_response", f"the answer is compressed as {encoding[:40]!r}, which was not asked for")


class _Inflater:
    """Decodes gzip, zlib and bare deflate in pieces of a bounded size."""

    def __init__(self) -> None:
        self._whole = 0  # members of the stream that are done
        self._member: Any = None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what these bytes decode to."""
        more = True
        while chunk or more:
            part = self._decode(chunk)
            if part:
                yield part
            if self._member is None or self._member.eof:
                chunk = self._member.unused_data if self._member else b""
                self._whole, self._member, more = self._whole + 1, None, False
            else:
                chunk, more = self._member.unconsumed_tail, len(part) == _DECODED_AT_ONCE_BYTES

    def _decode(self, chunk: bytes) -> bytes:
        first = self._member is None
        if first:
            self._member = zlib.decompressobj(wbits=47)
        try:
            return bytes(self._member.decompress(chunk, _DECODED_AT_ONCE_BYTES))
        except zlib.error as error:
            if self._whole:
                # What follows a finished stream is none of it.
                self._member = None
                return b""
            if not first:
                raise FetchFailed("bad_response", f"the answer cannot be decompressed: {error}") from error
        self._member = zlib.decompressobj(wbits=-15)
        try:
            return bytes(self._member.decompress(chunk, _DECODED_AT_ONCE_BYTES))
        except zlib.error as error:
            raise FetchFailed("bad_response", f"the answer cannot be decompressed: {error}") from error
