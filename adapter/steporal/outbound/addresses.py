"""Which addresses a sink may connect to.

A sink's URL may be a customer's. One that leads into the network of the worker would let the customer talk to what
trusts that network: metadata services, databases, admin pages. So the addresses of a name are checked, and the
connection is made to one of the addresses that were checked, not to the name: between a check and a second look-up of
the name, its owner could change what it leads to (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from .problems import PrivateAddressError

_NAT64 = IPv6Network("64:ff9b::/96")  # https://www.rfc-editor.org/rfc/rfc6052


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the internet: not private, loopback, link-local, shared, reserved, multicast."""
    if isinstance(address, IPv6Address) and (inner := _embedded(address)) is not None:
        return is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def is_plainly_private(host: str) -> bool:
    """Whether a host is private as it is written, without a look-up: an address, or ``localhost``."""
    try:
        return not is_public(ip_address(host))
    except ValueError:
        name = host.rstrip(".").lower()
        return name == "localhost" or name.endswith(".localhost")


async def addresses_of(host: str, port: int) -> list[str]:
    """The addresses that a name leads to, in the order in which to try them.

    Raises:
        ConnectionError: It leads to none, for now.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as err:
        raise ConnectionError(f"the name {host!r} does not resolve to an address: {err}") from None
    if not found:
        raise ConnectionError(f"the name {host!r} does not resolve to an address")
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


async def public_addresses_of(host: str, port: int) -> list[str]:
    """The same, if all of them are public.

    Raises:
        ConnectionError: It leads to none, for now.
        PrivateAddressError: One is not.
    """
    found = await addresses_of(host, port)
    for address in found:
        if not is_public(ip_address(address)):
            where = address if address == host else f"{host!r}, which resolves to {address}"
            raise PrivateAddressError(
                f"{where} is not a public address of the internet; to allow addresses of your own network: "
                "event_sink(..., allow_private=True)"
            )
    return found
