"""Which addresses tools may reach: those of the public internet, and what the operator lists.

What decides is the address that will be connected to, never the text of a host: names, numbers in any spelling and
literals are all resolved, once, and every address that comes is judged.

Sources: the IANA registries of special-purpose IPv4 and IPv6 addresses; RFC 6052 (NAT64), 3056 (6to4), 4380 (Teredo),
5214 (ISATAP).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from msgspec import Struct

from fusiontools.errors import FusionError, UsageError

IPAddress = IPv4Address | IPv6Address
#: Resolves a host: every address of it, as text.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

#: Refused beside what `ipaddress` does not call global; its versions differ, and some of these are global to all.
_REFUSED_IPV4 = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's own services
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
]
#: The only IPv6 addresses that are handed out to hosts on the internet, and what inside them is for other purposes.
_PUBLIC_IPV6 = IPv6Network("2000::/3")
_REFUSED_IPV6 = [
    IPv6Network(text)
    for text in ("2001::/32", "2001:2::/48", "2001:10::/28", "2001:20::/28", "2001:db8::/32", "3fff::/20")
]
_NAT64 = IPv6Network("64:ff9b::/96")
_6TO4 = IPv6Network("2002::/16")
_MAPPED = (IPv6Network("::ffff:0:0/96"), IPv6Network("::ffff:0:0:0/96"))
_ISATAP = (0x5EFE, 0x02005EFE)


class AddressRefused(FusionError):
    """A tool may not go there."""

    def __init__(self, message: str) -> None:
        super().__init__("refused", message)


def is_public(address: IPAddress) -> bool:
    """Return whether this is a host's address on the internet; an IPv4 address inside an IPv6 one is judged itself."""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _REFUSED_IPV4)
    if (inside := _ipv4_inside(address)) is not None:
        return is_public(inside)
    if address not in _PUBLIC_IPV6 or not address.is_global:
        return False
    return not any(address in network for network in _REFUSED_IPV6)


def _ipv4_inside(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address to which packets for this one end up going, if there is one."""
    bits = int(address)
    if address in _NAT64 or any(address in network for network in _MAPPED):
        return IPv4Address(bits & 0xFFFFFFFF)
    if address in _6TO4:
        return IPv4Address(bits >> 80 & 0xFFFFFFFF)
    if bits >> 32 & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(bits & 0xFFFFFFFF)
    return None


class _Allowed(Struct, frozen=True):
    """One entry of the operator's list: a name, or a network; of one port, or of all."""

    name: str
    network: IPv4Network | IPv6Network | None
    port: int | None

    def covers(self, name: str, address: IPAddress, port: int) -> bool:
        if self.port not in (None, port):
            return False
        if self.network is None:
            return self.name == name
        return address.version == self.network.version and address in self.network


class AddressGuard:
    """Resolves hosts and judges what comes.

    Args:
        allowed: what the operator opens beside the public internet: names, addresses and networks, with `:PORT` for
            one port (`wiki.corp`, `10.2.0.0/16`, `127.0.0.1:8080`, `[::1]:8080`).
        resolve: another resolver than the system's.

    Raises:
        UsageError: an entry of the list cannot be read.
    """

    def __init__(self, allowed: Iterable[str] = (), resolve: Resolve | None = None) -> None:
        self._allowed = [_read_allowed(entry) for entry in allowed]
        self._resolve = resolve or _resolve

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host to connect to, in the resolver's order.

        Raises:
            AddressRefused: one of them is not public, and the operator does not list it.
            OSError: the host cannot be resolved.
        """
        name = plain_name(host)
        if not name:
            raise AddressRefused("an address without a host")
        found = list(dict.fromkeys(await self._resolve(name, port)))
        for text in found:
            address = ip_address(text.partition("%")[0])
            if not is_public(address) and not any(entry.covers(name, address, port) for entry in self._allowed):
                said = name if name == text else f"{name} ({text})"
                raise AddressRefused(f"{said} is no address on the public internet")
        if not found:
            raise AddressRefused(f"{name} has no address")
        return found


def plain_name(host: str) -> str:
    """Return a host as rules compare it: lower case, without brackets and the dot at the end."""
    return host.strip("[]").lower().rstrip(".")


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label of no or too many characters
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no host name") from error
    return [str(entry[4][0]) for entry in found]


def _read_allowed(entry: str) -> _Allowed:
    text = entry.strip()
    try:
        return _Allowed(text, ip_network(text, strict=False), None)
    except ValueError:
        pass  # a name, or a port behind it
    try:
        split = urlsplit(f"//{text}")
        host, port = plain_name(split.hostname or ""), split.port
    except ValueError as error:
        raise UsageError(f"an allowed address {entry!r} cannot be read: {error}") from error
    if not host or split.path or split.query or split.username is not None:
        raise UsageError(f"an allowed address {entry!r} is no host, address or network, with or without :PORT")
    try:
        return _Allowed(text, ip_network(host), port)
    except ValueError:
        return _Allowed(host, None, port)
