"""The page at `/`: its files, what it has to know of this server, and the keys that it may bring.

Nothing in it is loaded from elsewhere and nothing inline runs: what a model writes can do no more than be read.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from starlette.responses import Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from fusiontools.config.models import Endpoint
from fusiontools.config.readiness import lacks
from fusiontools.errors import UsageError, __version__
from fusiontools.server.catalog import models_of
from fusiontools.server.middleware import is_loopback, is_of_page, takes_page_keys
from fusiontools.server.protocols.exchange import ApiError
from fusiontools.server.request import App, JsonRoute, Receive, Send, read_body, send_json

if TYPE_CHECKING:
    from fusiontools.server.state import Server

_FILES = Path(__file__).parent / "page"
_LONGEST_KEY = 512
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Another version of the server may be at this address tomorrow; whether a file is the same is asked in 1 ms.
    "cache-control": "no-cache",
}


class PageFiles(StaticFiles):
    """The files of the page."""

    def __init__(self) -> None:
        super().__init__(directory=_FILES)

    def get_path(self, scope: Any) -> str:
        """Return which file a route asks for."""
        return str(scope["path_params"].get("file", "index.html"))

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a file with what it may do."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(_HEADERS)
        return response


class PageRoutes(Struct, frozen=True):
    """What the page asks.

    Args:
        front: answers at `/` who wants no page.
    """

    server: Server
    front: App

    def routes(self) -> list[Route]:
        """Return where the page is."""
        files = PageFiles()

        async def root(scope: Any, receive: Receive, send: Send) -> None:
            await (files if is_of_page(scope) else self.front)(scope, receive, _varied(send))

        return [
            Route("/", JsonRoute(root), methods=["GET"]),
            Route("/page/files/{file:path}", JsonRoute(files), methods=["GET"]),
            Route("/page/state", JsonRoute(self.state), methods=["GET"]),
            Route("/page/key", JsonRoute(self.take_key), methods=["POST"]),
        ]

    async def state(self, scope: Any, receive: Receive, send: Send) -> None:
        """Say what the page has to know beside the recipes: what may be said, and which endpoints lack something."""
        server = self.server
        needed = {model.endpoint for model in models_of(server.catalog.recipes[server.catalog.default])}
        said = {
            "version": __version__,
            "overrides": list(server.planner.allowed()),
            "models": list(server.catalog.models),
            "endpoints": [
                {
                    "name": name,
                    "needed": name in needed,
                    "lacks": lacks(endpoint),
                    "lacks_key": _lacks_key(endpoint),
                    "takes_key": self._takes_key(endpoint, scope),
                }
                for name, endpoint in self._endpoints().items()
            ],
            "page_keys": self._may_bring_keys(scope),
        }
        await send_json(send, 200, said, {"cache-control": "no-store"})

    async def take_key(self, scope: Any, receive: Receive, send: Send) -> None:
        """Take an endpoint's key into this process's memory, where it has none."""
        body = await read_body(scope, receive, self.server.options)
        if not self._may_bring_keys(scope):
            why = "this server takes no keys from its page: set them in its environment"
            raise ApiError(403, "page_keys_off", why)
        name, key = body.get("endpoint"), body.get("key")
        endpoint = self._endpoints().get(name) if isinstance(name, str) else None
        if endpoint is None or not self._takes_key(endpoint, scope):
            raise ApiError(400, "invalid_request", "no endpoint of this name lacks a key here", "endpoint")
        if not isinstance(key, str) or not _is_key(key.strip()):
            raise ApiError(400, "invalid_request", "this is no key: it has no spaces and at most 512 characters", "key")
        assert endpoint.api_key_env is not None  # noqa: S101 - it takes a key
        # Where every reader of keys looks for them, those that mask keys included; nothing is written down.
        os.environ[endpoint.api_key_env] = key.strip()
        self.server.offer_anew()
        await send_json(send, 200, {"endpoint": name}, {})

    def _endpoints(self) -> dict[str, Endpoint]:
        """Return the endpoints whose models are offered, and those that recipes would have that lack a key."""
        catalog = self.server.catalog
        homes = {model.endpoint for recipe in catalog.recipes.values() for model in models_of(recipe)}
        return {name: endpoint for name, endpoint in catalog.endpoints.items() if name in homes or endpoint.api_key_env}

    def _takes_key(self, endpoint: Endpoint, scope: Any) -> bool:
        return self._may_bring_keys(scope) and _lacks_key(endpoint)

    def _may_bring_keys(self, scope: Any) -> bool:
        client = scope.get("client")
        on_this_machine = client is not None and is_loopback(client[0])
        return takes_page_keys(self.server.options) and on_this_machine and _is_of_our_page(scope)


def _lacks_key(endpoint: Endpoint) -> bool:
    """Return whether an endpoint wants a key and has none; where its key cannot be had another does not help."""
    try:
        return endpoint.api_key_env is not None and not endpoint.key_place()
    except UsageError:
        return False


def _is_of_our_page(scope: Any) -> bool:
    """Return whether no page of another origin asks, not even one that may ask questions (`--allow-origin`)."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin")
    return origin is None or origin.partition(b"://")[2].lower() == headers.get(b"host", b"").lower()


def _is_key(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_KEY and text.isascii() and text.isprintable() and " " not in text


def _varied(send: Send) -> Send:
    """Return what sends the same, marked as different for who accepts a page and who does not."""

    async def marked(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"vary", b"accept")]
        await send(message)

    return marked
