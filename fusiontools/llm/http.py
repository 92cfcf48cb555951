"""Ask an endpoint over HTTP, once. OpenAI's chat completions are spoken here; another API is an `ApiFormat` of its own.

What carries a request is below this: `http1.py`, which says why it exists, or a transport of httpx (`transport.py`);
httpx's client layer (cookies, redirects, auth flows) is left out, which would be half of what a call costs.
"""

from __future__ import annotations

import asyncio
import gc
import re
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from ipaddress import ip_address
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.config.models import Endpoint
from fusiontools.errors import CallFailed, UsageError, __version__
from fusiontools.llm.answer_form import hold_to
from fusiontools.llm.completion import (
    DEPTH,
    DEPTH_HEADER,
    TRACED,
    Completion,
    CompletionRequest,
    Delta,
    OnDelta,
    Thoughts,
    say_whole,
)
from fusiontools.llm.http1 import ConnectError, Http1Response, Http1Transport, TransportError
from fusiontools.llm.inflate import BODY_LIMIT_BYTES, Inflater, Room
from fusiontools.llm.key_mask import BodyMask, KeyMask, current_key
from fusiontools.llm.openai_reply import read_plain
from fusiontools.llm.quirks import MOST_LESSONS, Quirks
from fusiontools.llm.reply_reader import OnBytes, ReplyReader, Translate
from fusiontools.llm.rewrite import restore_names
from fusiontools.llm.transport import HttpxBody, transport_for
from fusiontools.record import jsonl

if TYPE_CHECKING:
    import httpx

#: After so many bytes cycles are looked for, and how soon: who was failed must have come to its end.
_COLLECTED_BYTES, _COLLECT_S = 32 * 2**20, 0.1
_DEPTH_NAME = DEPTH_HEADER.encode()
_PORTS = {"http": 80, "https": 443}
#: What stands in a path or a query as it is; a `%` begins what is escaped already.
_UNQUOTED = "%/:@!$&'()*+,;=~?[]|"
_NO_HOST = re.compile(r'[\s<>"{}|\\^`]')
_BRACKETED = re.compile(r"\[[^\[\]]+\](?::\d*)?$")
T = TypeVar("T")


class ApiFormat(Struct, frozen=True):
    """What an API says in its own way over the same HTTP.

    Args:
        path: what follows the base URL.
        key_header: the header that carries the key, and what stands before the key in it.
        headers: what every request carries.
        quirks: writes the bodies for one model and learns from its refusals; told whether to mark the cache.
        events: makes what puts the events of one stream, or a plain answer, into OpenAI's shape; None where it has it.
    """

    path: str = "/chat/completions"
    key_header: tuple[str, str] = ("authorization", "Bearer ")
    headers: Mapping[str, str] = {}
    quirks: Callable[[bool], Quirks] = Quirks
    events: Callable[[], Translate] | None = None


OPENAI = ApiFormat()


class HttpReply:
    """An endpoint's reply: its head, and its body as it comes, inflated and without our key.

    Args:
        body: the response, of either transport.
        mask: takes our key out: the one place where what an endpoint says comes in.
        room: what bodies that are inflated may have together.
    """

    def __init__(self, body: Http1Response | HttpxBody, mask: KeyMask, room: Room) -> None:
        self.status = body.status
        #: The client's own names of the tools that went out under short ones.
        self.own_names: Mapping[str, str] = {}
        self._body, self._room = body, room
        self._mask = mask
        self._masked = BodyMask(mask) if mask.key else None
        self._codings = b", ".join([value for name, value in body.headers if name.lower() == b"content-encoding"])
        self._inflater: Inflater | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """The head, its names in lower case."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._body.headers}
        return self._mask.hide_headers(headers) if self._mask.key else headers

    @property
    def size(self) -> int:
        """How many bytes have been read, and made of them."""
        return self._body.size + (self._inflater.taken if self._inflater is not None else 0)

    def each(self, take: OnBytes) -> Awaitable[None]:
        """Hand on the body piece by piece as it is read; what is awaited ends with it."""
        return self._body.each(take) if self._masked is None and not self._codings else self._each_mended(take)

    async def _each_mended(self, take: OnBytes) -> None:
        if self._codings:
            async for piece in self._pieces():
                take(piece)
        else:
            masked: Any = self._masked
            await self._body.each(lambda piece: take(masked.take(piece)))
            take(masked.finish())

    async def whole(self) -> bytes:
        """Return the body.

        Raises:
            CallFailed: it is longer than anything that is read.
        """
        body = self._body.at_hand() if not self._codings else None
        if body is None:
            body = await self._gathered()
        elif self._mask.key:
            body = self._mask.hide(body)
        return _replace_all(body, _names_in(self.own_names)) if self.own_names else body

    async def _gathered(self) -> bytes:
        pieces: list[bytes] = []
        size = 0

        def add(piece: bytes) -> None:
            nonlocal size
            size += len(piece)
            if size > BODY_LIMIT_BYTES:
                raise CallFailed("bad_response", f"the endpoint sent more than {BODY_LIMIT_BYTES >> 20} MiB")
            pieces.append(piece)

        await self.each(add)
        return b"".join(pieces)

    def chunks(self) -> AsyncIterator[bytes]:
        """Return the body as it comes, to whoever waits between its pieces."""
        return _renamed(self._pieces(), self.own_names) if self.own_names else self._pieces()

    def aclose(self) -> Awaitable[None]:
        """Let go of the body, read or not; that is done when what is returned has been awaited."""
        if self._inflater is not None:
            self._inflater.close()
        return self._body.aclose()

    async def _pieces(self) -> AsyncIterator[bytes]:
        async for piece in self._inflated() if self._codings else self._body:
            if shown := piece if self._masked is None else self._masked.take(piece):
                yield shown
        if self._masked is not None and (rest := self._masked.finish()):
            yield rest

    async def _inflated(self) -> AsyncIterator[bytes]:
        """Yield what the endpoint has compressed without being asked; others are served between the pieces of a lot."""
        self._inflater = Inflater(self._codings.decode("latin-1"), self._room)
        async for chunk in self._body:
            for i, piece in enumerate(self._inflater.feed(chunk)):
                if i:
                    await asyncio.sleep(0)
                yield piece


class HttpBackend:
    """One endpoint.

    Args:
        transport: used for every call instead of the built-in choice: the seam for tests and embedders.
        api: what the endpoint speaks.
    """

    def __init__(
        self, endpoint: Endpoint, transport: httpx.AsyncBaseTransport | None = None, api: ApiFormat = OPENAI
    ) -> None:
        self._endpoint, self._wants_key = endpoint, endpoint.wants_key
        self._api = api
        self._url = call_url(endpoint, api.path)
        self._headers = {
            "host": self._url.netloc,
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "user-agent": f"fusiontools/{__version__}",
            **api.headers,
            **endpoint.headers,
        }
        #: What begins every request, and the key for which it was written.
        self._head = b""
        self._head_for: KeyMask | None = None
        self._quirks: dict[str, Quirks] = {}
        #: Models that were seen to close thoughts which they had not opened: their streams are held until then.
        self._waits: set[str] = set()
        self._room = Room()
        self._read_bytes = 0
        self._transport: Http1Transport | httpx.AsyncBaseTransport | None = transport
        self._own: Http1Transport | httpx.AsyncBaseTransport | None = None
        self._masked = KeyMask(None)

    async def complete(self, request: CompletionRequest, on_delta: OnDelta | None = None) -> Completion:
        """Make one call; a refusal that taught something comes back marked `adapted`, to be asked again at once."""
        quirks = self._quirks_of(request.model)
        body = quirks.body(request, stream=on_delta is not None)
        form = quirks.form_in_words(request) if "response_format" in request.params else None
        own_names = quirks.own_tool_names(request.params) if "tools" in request.params else None
        # An answer whose form may have to be repaired is shown when that is done.
        hear: OnDelta | None = None if on_delta is None else _ignore if form is not None else on_delta
        if hear is not None and own_names:
            hear = _rename_deltas(hear, own_names)
        mask = await self._mask()
        answer = mask.answer(hear) if mask.key else None
        try:
            completion = await self._call(body, mask, hear if answer is None or hear is None else answer.show)
        except CallFailed as failure:
            failure.adapted = quirks.learn(failure, request, body)
            _let_go(failure)
            raise
        if answer is not None:
            completion = answer.finish(completion)
        if own_names and completion.tool_calls:
            completion = replace(completion, tool_calls=restore_names(completion.tool_calls, own_names))
        if form is not None:
            completion = hold_to(completion, form)
            if on_delta is not None and completion.content:
                say_whole(on_delta, completion.content, completion.reasoning_details)
        return completion

    async def forward(self, asked: Mapping[str, Any], take: Callable[[HttpReply], Awaitable[T]]) -> T:
        """Send a client's own body, as this endpoint has been found to understand it; returns what `take` makes of the
        reply, which it may read as it comes.

        Raises:
            CallFailed: the endpoint cannot be reached, refuses, or breaks off.
        """
        quirks, mask = self._quirks_of(str(asked.get("model"))), await self._mask()
        try:
            for lesson in range(MOST_LESSONS + 1):
                sent = quirks.adapt(asked)
                reply = HttpReply(await self._send(jsonl.dumps(sent), mask), mask, self._room)
                try:
                    if reply.status < 300:
                        reply.own_names = quirks.own_tool_names(asked)
                        return await take(reply)
                    failure = await _failure_of(reply)
                finally:
                    await self._close(reply)
                if lesson == MOST_LESSONS or not quirks.learn_from(failure, asked, sent):
                    break
            raise failure
        except CallFailed as failure:
            _let_go(failure)
            raise
        except (TransportError, zlib.error) as error:
            _let_go(error)
            raise self._call_failed(error, retryable=False) from error

    async def _mask(self) -> KeyMask:
        """Return what masks the key that holds now."""
        key = await current_key(self._endpoint) if self._wants_key else None
        if self._masked.of != key:
            self._masked = KeyMask(key)
        return self._masked

    def _quirks_of(self, model: str) -> Quirks:
        quirks = self._quirks.get(model)
        if quirks is None:
            quirks = self._quirks[model] = self._api.quirks(self._endpoint.caches_prompts(model))
        return quirks

    async def aclose(self) -> None:
        """Close every connection."""
        if self._own is not None:
            await self._own.aclose()

    async def _call(self, body: dict[str, Any], mask: KeyMask, on_delta: OnDelta | None) -> Completion:
        started = time.monotonic()
        api = self._api
        reader: ReplyReader | None = None
        try:
            reply = HttpReply(await self._send(jsonl.dumps(body), mask), mask, self._room)
            try:
                if reply.status >= 300:
                    raise _naming_url(await _failure_of(reply), self._url)
                if on_delta is not None:
                    reader = self._reader(body, on_delta, started)
                    await reply.each(reader.feed)
                    completion = reader.finish()
                else:
                    content = await reply.whole()
                    if api.events is None and (plain := read_plain(content, body["model"])) is not None:
                        return plain
                    reader = self._reader(body, None, started)
                    completion = reader.read(content)
            finally:
                await self._close(reply)
        except (TransportError, zlib.error) as error:
            raise self._call_failed(error, retryable=reader is None or reader.ttft_s is None) from error
        if reader.closes_unopened:
            self._waits.add(body["model"])
        return completion

    def _reader(self, body: Mapping[str, Any], hear: OnDelta | None, started: float) -> ReplyReader:
        translate = self._api.events() if self._api.events is not None else None
        model, waits, tools = body["model"], body["model"] in self._waits, _tool_names(body)
        return ReplyReader(model, translate, hear, started=started, waits=waits, tools=tools)

    def _send(self, content: bytes, mask: KeyMask) -> Awaitable[Http1Response | HttpxBody]:
        """Send a body; what is awaited is the response when its head has come."""
        depth, traced, transport = DEPTH.get(), TRACED.get(), self._transport
        if transport is None:
            transport = self._transport = self._own = transport_for(self._url)
        more = {} if traced is None else traced.headers
        if isinstance(transport, Http1Transport):
            hops = b"%b: %d\r\n" % (_DEPTH_NAME, depth) if depth else b""
            lines = b"%b%b%b" % (self._head_with(mask), hops, _header_lines(more) if more else b"")
            return transport.exchange(b"%bcontent-length: %d\r\n\r\n%b" % (lines, len(content), content))
        hop = {DEPTH_HEADER: str(depth)} if depth else {}
        headers = {**self._headers, **self._key_header(mask), **hop, **more, "content-length": str(len(content))}
        return HttpxBody.of(transport, self._url.geturl(), headers, content)

    def _head_with(self, mask: KeyMask) -> bytes:
        """Return what begins every request with this key: it is written once."""
        if self._head_for is not mask:
            lines = _header_lines({**self._headers, **self._key_header(mask)})
            self._head, self._head_for = b"POST %b HTTP/1.1\r\n%b" % (target_of(self._url).encode(), lines), mask
        return self._head

    def _key_header(self, mask: KeyMask) -> dict[str, str]:
        name, before = self._api.key_header
        return {name: before + mask.of} if mask.of else {}

    async def _close(self, reply: HttpReply) -> None:
        """Let go of a reply, and see to it that what failed is freed once much has been read.

        The traceback of a failure holds on to what was read, in a cycle, and Python looks for cycles by the number of
        objects, whatever their size: a few large bodies would stay for hours.
        """
        self._read_bytes += reply.size
        await reply.aclose()
        if self._read_bytes > _COLLECTED_BYTES:
            self._read_bytes = 0
            asyncio.get_running_loop().call_later(_COLLECT_S, gc.collect)

    def _call_failed(self, error: Exception, *, retryable: bool) -> CallFailed:
        """Say a transport's failure in our words; text that somebody has seen cannot be asked for again."""
        reason, place = self._masked.hide_in(str(error)) or type(error).__name__, self._endpoint.base_url
        if isinstance(error, ConnectError):
            return CallFailed("connect", f"cannot reach {place}: {reason}", retryable=True)
        return CallFailed("connection", f"{place} closed the connection: {reason}", retryable=retryable)


def _let_go(error: BaseException | None) -> None:
    """Free what was read by frames that have ended: else a failure's traceback holds on to a large body, in a cycle."""
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _tool_names(body: Mapping[str, Any]) -> set[str]:
    """Return what a request lets a model call."""
    named = [tool.get("function", tool) for tool in body.get("tools") or [] if isinstance(tool, dict)]
    return {tool["name"] for tool in named if isinstance(tool, dict) and isinstance(tool.get("name"), str)}


def _ignore(_: Delta) -> None:
    pass


def _rename_deltas(on_delta: OnDelta, own_names: Mapping[str, str]) -> OnDelta:
    return lambda delta: on_delta(delta if isinstance(delta, str | Thoughts) else restore_names(delta, own_names))


async def _renamed(chunks: AsyncIterator[bytes], own_names: Mapping[str, str]) -> AsyncIterator[bytes]:
    """Yield a reply line by line, the tools in it under the client's own names; a short name is unlike any word."""
    names = _names_in(own_names)
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield _replace_all(b"\n".join([*lines, b""]), names)
    if rest:
        yield _replace_all(rest, names)


def _names_in(own_names: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return short names of tools and the client's own, each as it stands in JSON."""
    return [(jsonl.dumps(short), jsonl.dumps(own)) for short, own in own_names.items()]


def _replace_all(data: bytes, names: list[tuple[bytes, bytes]]) -> bytes:
    for short, own in names:
        data = data.replace(short, own)
    return data


def call_url(endpoint: Endpoint, path: str) -> SplitResult:
    """Return the URL that calls go to: in ASCII, without a user's name and a port that goes without saying.

    Raises:
        UsageError: the endpoint's base URL is none, or of another scheme than http and https.
    """
    base = endpoint.base_url
    try:
        url = urlsplit(f"{base.rstrip('/')}{path}")
        host, port = url.hostname or "", url.port
        if not host.isascii():
            host = _in_ascii(host)
        if "[" in url.netloc and not (
            ip_address(host.partition("%")[0]).version == 6 and _BRACKETED.search(url.netloc)
        ):
            raise ValueError("what stands beside the brackets is no port")
    except ValueError as error:
        raise UsageError(f"endpoint {endpoint.name}: {base!r} is no URL: {error}") from error
    if url.scheme not in _PORTS or not host or _NO_HOST.search(host) or not base.isprintable() or base != base.strip():
        raise UsageError(f"endpoint {endpoint.name}: {base!r} is no http or https URL")
    shown = f"[{host}]" if ":" in host else host
    netloc = shown if port in (None, _PORTS[url.scheme]) else f"{shown}:{port}"
    return SplitResult(url.scheme, netloc, quote(url.path or "/", _UNQUOTED), quote(url.query, _UNQUOTED), "")


def target_of(url: SplitResult) -> str:
    """Return what a request line names: the path, and the query where there is one."""
    return f"{url.path}?{url.query}" if url.query else url.path


def _in_ascii(host: str) -> str:
    """Return a host's name in ASCII, as the rules of 2008 write it: those of Python's own codec name another host.

    Raises:
        ValueError: it is no name of a host.
    """
    import httpx

    try:
        return httpx.URL(f"http://{host}").raw_host.decode()
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from error


def _header_lines(headers: Mapping[str, str]) -> bytes:
    """Return headers as they go out."""
    text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if text.count("\r") != len(headers) or text.count("\n") != len(headers):
        raise ConnectError("a header holds a line break")
    return text.encode()


async def _failure_of(reply: HttpReply) -> CallFailed:
    # Most runs meet none, and its table takes longer to load than a call.
    from fusiontools.llm.failures import read_failure

    return read_failure(reply.status, await reply.whole(), reply.headers)


def _naming_url(failure: CallFailed, url: SplitResult) -> CallFailed:
    """Return a failure with the URL that was called, where that seems to be what is wrong."""
    if failure.status in (404, 405) and "model" not in failure.message.lower():
        path = url.path.rpartition("/chat/completions")[0] or url.path.rpartition("/")[0]
        hint = "" if re.search(r"/v\d", path) else "; most base URLs end with their version: …/v1"
        failure.message += f" (POST {url._replace(query='').geturl()}{hint})"
    return failure
