"""Who may come in: origins, content types and keys; starlette's middleware looks at hosts and answers for CORS.

A page that somebody visits can make a browser ask a server on that person's own machine. So a host that is not ours
(DNS rebinding), a foreign origin and a body that is no JSON (what a page may send unasked) are turned away.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from fusiontools.errors import UsageError
from fusiontools.server.protocols.exchange import ApiError
from fusiontools.server.request import ANONYMOUS, App, too_large

#: What tells nothing but whether the server is there.
_OPEN = ("/health", "/ready")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
#: A host as a head names it, its port aside; anything else around a name is a trick.
_HOST = re.compile(r"(\[[^\[\]]*\]|[^\[\]:@/?#,\s*]+)(?::[0-9]*)?")


@dataclass(frozen=True, slots=True)
class Access:
    """What is checked of a request's head.

    Args:
        keys: those that may ask; none lets everybody in.
        hosts: names under which the server may be asked; None lets every name pass.
        origins: web pages that may ask.
        max_body_bytes: what a body says of its own length may be at most.
    """

    keys: tuple[bytes, ...]
    hosts: frozenset[str] | None
    origins: frozenset[str]
    max_body_bytes: int

    def wrap(self, app: App) -> App:
        """Return the app behind starlette's checks, those that anything is configured for."""
        if self.origins:
            # Fetch, CORS protocol: a key's header is not among what `*` means, so any header is named back.
            app = CORSMiddleware(
                app, self.origins, allow_methods=("GET", "POST", "DELETE"), allow_headers=("*",), expose_headers=("*",)
            )
        if self.hosts is not None:
            app = TrustedHostMiddleware(app, sorted(self.hosts), www_redirect=False)
        return app

    def caller(self, scope: Mapping[str, Any]) -> str:
        """Return who asks: a name made from the key.

        Raises:
            ApiError: who may not come in, and why.
        """
        if sum(name == b"host" for name, _ in scope["headers"]) > 1:
            raise ApiError(400, "invalid_request", "a request names one host: one `Host`, and none else in its target")
        headers = _headers(scope)
        origin = headers.get(b"origin")
        if origin is not None:
            self._check_origin(origin.decode("latin-1"), headers.get(b"host", b"").decode("latin-1"))
        if scope["method"] == "POST":
            self._check_body(headers)
        if not self.keys or scope["path"] in _OPEN or is_of_page(scope):
            return ANONYMOUS
        return self._find_caller(headers)

    def _check_origin(self, origin: str, host: str) -> None:
        if not origin or origin in self.origins:
            return
        if origin.partition("://")[2].lower() == host.lower():
            return  # a page of this very server: under a name that is checked, or with a key that no other page has
        raise ApiError(403, "origin_not_allowed", f"pages of {origin[:100]!r} may not ask this server (--allow-origin)")

    def _check_body(self, headers: Mapping[bytes, bytes]) -> None:
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            raise ApiError(415, "unsupported_media_type", "a body is sent as `content-type: application/json`")
        if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
            raise ApiError(415, "unsupported_media_type", "a body is sent as it is, without a `content-encoding`")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.max_body_bytes:
            raise too_large(self.max_body_bytes)

    def _find_caller(self, headers: Mapping[bytes, bytes]) -> str:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        bearer = token.strip() if scheme.lower() == b"bearer" else b""
        # Some clients send a key of their own beside the one they are given.
        shown = [bearer, headers.get(b"x-api-key", b"")]
        found = None
        for digest in [hashlib.sha256(key).digest() for key in shown]:
            for key in self.keys:  # all of them, so that the time says nothing
                if hmac.compare_digest(digest, hashlib.sha256(key).digest()):
                    found = key
        if found is None:
            why = "this key is not known here" if any(shown) else "no key"
            wanted = "send one as `authorization: Bearer KEY` or `x-api-key: KEY`"
            raise ApiError(401, "invalid_api_key", f"{why}; {wanted}", headers={"www-authenticate": "Bearer"})
        return name_caller(found)


def is_of_page(scope: Mapping[str, Any]) -> bool:
    """Return whether this asks for the page or a part of it, which says nothing that is not in every installation."""
    if scope["method"] not in ("GET", "HEAD"):
        return False
    if scope["path"] == "/":
        return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
    return bool(scope["path"].startswith("/page/files/"))


def name_caller(key: bytes) -> str:
    """Return a key's name, from which nobody finds the key."""
    return f"key-{hashlib.sha256(b'fusiontools caller ' + key).hexdigest()[:12]}"


def hosts_for(address: str, more: Sequence[str], keys: Sequence[bytes]) -> frozenset[str] | None:
    """Return the names under which a server at this address is asked.

    Where a key is wanted, no page that rebinds a name can ask; so any name is fine unless some were given.

    Raises:
        UsageError: one that was given is no name.
    """
    if keys and not more:
        return None
    given = {text: _host_name(text) for text in more}
    for text, name in given.items():
        if name is None:
            raise UsageError(f"--allow-host {text!r}: is no host name; say it as in `Host`: fusion.example")
    return frozenset(name for name in (*_LOOPBACK, _host_name(address), *given.values()) if name is not None)


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach the address."""
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False  # a name, whatever it looks like, may be anybody's


def _host_name(host: str) -> str | None:
    """Return a host without its port, as a client spells it in `Host`; None where it is no host."""
    host = host.strip().lower()
    bare = host.count(":") > 1 and not host.startswith("[")
    found = _HOST.fullmatch(f"[{host}]" if bare else host)
    name = found[1] if found else ""
    if not name.startswith("["):
        return name or None
    try:
        return f"[{ipaddress.IPv6Address(name[1:-1]).compressed}]"
    except ValueError:
        return None


def _headers(scope: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return the headers, the first of each name."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        found.setdefault(name, value)
    return found
