"""The guard of addresses: what is public, in every spelling, and what the operator opens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from fusiontools.errors import UsageError
from fusiontools.tools.addresses import AddressGuard, AddressRefused, is_public

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "93.184.215.14",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
    "64:ff9b::808:808",  # NAT64 of 8.8.8.8: what a host sees behind DNS64
    "::ffff:8.8.8.8",
    "2002:808:808::1",
]
NOT_PUBLIC = [
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",  # Alibaba's metadata
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # Azure
    "169.254.169.254",  # the metadata of most clouds
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",  # Oracle's metadata
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "100::1",
    "2001:0:808:808::1",  # Teredo
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2a00:1450::5efe:7f00:1",  # ISATAP
    "2a00:1450::200:5efe:a00:1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # Amazon's metadata
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("text", PUBLIC)
def test_an_address_of_the_internet_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_any_other_address_is_not(text: str) -> None:
    assert not is_public(ip_address(text))


def addresses(host: str, *allowed: str, port: int = 80, found: Sequence[str] | None = None) -> list[str]:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return found or []

    return asyncio.run(AddressGuard(allowed, resolve if found is not None else None).addresses(host, port))


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0177.0.0.1", "0x7f000001", "0x7f.1", "127.1", "017700000001", "0", "127.0.0.1", "127.0.0.1.",
     "localhost", "LOCALHOST.", "::1", "[::1]", "::ffff:127.0.0.1", "0:0:0:0:0:0:0:1", "fe80::1%lo"],
)  # fmt: skip
def test_this_machine_is_refused_in_every_spelling(host: str) -> None:
    with pytest.raises(AddressRefused, match="no address on the public internet"):
        addresses(host)


@pytest.mark.parametrize("host", ["", ".", "[]"])
def test_no_host_is_refused(host: str) -> None:
    with pytest.raises(AddressRefused, match="without a host"):
        addresses(host)


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example"])
def test_a_name_that_is_none_cannot_be_resolved(host: str) -> None:
    with pytest.raises(OSError, match="no host name"):
        addresses(host)


def test_one_private_address_among_public_ones_is_enough() -> None:
    with pytest.raises(AddressRefused, match=r"two\.example \(10\.0\.0\.1\)"):
        addresses("two.example", found=["8.8.8.8", "10.0.0.1"])


def test_public_addresses_come_in_the_order_of_the_resolver() -> None:
    assert addresses("two.example.", found=["8.8.8.8", "1.1.1.1", "8.8.8.8"]) == ["8.8.8.8", "1.1.1.1"]


@pytest.mark.parametrize(
    ("entry", "host", "found", "port"),
    [
        ("wiki.corp", "WIKI.corp.", "10.2.3.4", 80),
        ("wiki.corp:8080", "wiki.corp", "10.2.3.4", 8080),
        ("10.2.0.0/16", "any.example", "10.2.3.4", 80),
        ("127.0.0.1", "127.1", "127.0.0.1", 4000),
        ("127.0.0.1:8080", "localhost", "127.0.0.1", 8080),
        ("[::1]:8080", "::1", "::1", 8080),
        ("::1", "[::1]", "::1", 80),
        ("fd00::/8", "six.corp", "fd00::5", 443),
    ],
)
def test_the_operator_opens_hosts_networks_and_ports(entry: str, host: str, found: str, port: int) -> None:
    assert addresses(host, entry, port=port, found=[found]) == [found]


@pytest.mark.parametrize(
    ("entry", "host", "found"),
    [
        ("wiki.corp", "evil.wiki.corp", "10.2.3.4"),
        ("wiki.corp:8080", "wiki.corp", "10.2.3.4"),
        ("10.2.0.0/16", "any.example", "10.3.0.1"),
        ("127.0.0.1:8080", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "::1", "::1"),
    ],
)
def test_the_operator_opens_nothing_else(entry: str, host: str, found: str) -> None:
    with pytest.raises(AddressRefused):
        addresses(host, entry, found=[found])


@pytest.mark.parametrize("entry", ["", "http://wiki.corp/", "wiki.corp/x", "me@wiki.corp", "wiki:port", "[::1"])
def test_an_entry_that_cannot_be_read_is_an_error(entry: str) -> None:
    with pytest.raises(UsageError, match="an allowed address"):
        AddressGuard([entry])
