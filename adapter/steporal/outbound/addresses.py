"""Addresses of a name, and which of them a sink may connect to.

A sink's URL may come from a customer. If it led into the network of the worker, the customer could reach what trusts
that network: metadata services, databases, admin pages. So the addresses of a name are checked, and the connection is
made to one of the checked addresses, not to the name: between a check and a second look-up, the owner of the name could
change its addresses (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from .problems import PrivateAddressError

# From IANA's registries of special-purpose addresses, as of 2025, because the standard library's are as old as
# Python's. https://www.iana.org/assignments/iana-ipv4-special-registry
_NOT_PUBLIC_IPV4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared; 100.100.100.200 is the metadata service of Alibaba Cloud
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # the host of a virtual machine of Azure; not in the registry
            "169.254.0.0/16",  # link-local; 169.254.169.254 is the metadata service of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is the metadata service of Oracle Cloud
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # once relays of 6to4
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ),
    )
)
# The whole internet is in 2000::/3. This excludes loopback, unique local (fd00:ec2::254 is the metadata service of
# AWS), link-local, site-local, multicast, IPv4-compatible, translated and local-use NAT64 (64:ff9b:1::/48) addresses.
# https://www.iana.org/assignments/ipv6-address-space https://www.iana.org/assignments/iana-ipv6-special-registry
_INTERNET = IPv6Network("2000::/3")
_NOT_PUBLIC_IPV6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, which has an IPv4 address in it, benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "3fff::/20",  # documentation
        ),
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")  # https://www.rfc-editor.org/rfc/rfc6052
_6TO4 = IPv6Network("2002::/16")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is public; the IPv4 address inside an IPv6 address must be public, too."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_IPV4)
    if (inner := _embedded(address)) is not None:
        return is_public(inner)
    return address in _INTERNET and not any(address in network for network in _NOT_PUBLIC_IPV6)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address contains, or None."""
    if address in _MAPPED or address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _6TO4:
        return IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return None


def is_plainly_private(host: str) -> bool:
    """Return whether a host is private as it is written, without a look-up: an address, or ``localhost``."""
    try:
        return not is_public(ip_address(host))
    except ValueError:
        name = host.rstrip(".").lower()
        return name == "localhost" or name.endswith(".localhost")


MAX_LOOK_UPS = 500
"""Maximum number of names that a process looks up at a time, each in a thread. Made-up names whose servers do not
respond could otherwise take all threads of the process."""

_in_progress: dict[tuple[str, int], Future[list[str]]] = {}
_lock = threading.Lock()


def _look_up(host: str, port: int) -> Future[list[str]]:
    """Look up a name in a separate thread, or join a look-up of the same name that is in progress.

    A look-up cannot be cancelled, and the name's owner determines its duration: it takes half a minute if the name
    servers do not respond. ``loop.getaddrinfo`` shares a few threads with everything else in the process, and one such
    name could occupy all of them.
    """
    with _lock:
        if (known := _in_progress.get((host, port))) is not None:
            return known
        if len(_in_progress) >= MAX_LOOK_UPS:
            raise ConnectionError(
                f"{host!r} was not looked up, because {len(_in_progress):,} other look-ups are in progress"
            )
        future = _in_progress[host, port] = Future()
        future.set_running_or_notify_cancel()  # otherwise a caller that stops waiting would cancel it for the others

    def look_up() -> None:
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except BaseException as err:
            _end((host, port))
            future.set_exception(err)
        else:
            _end((host, port))
            future.set_result(list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in infos)))

    try:
        threading.Thread(target=look_up, name=f"steporal-look-up-{host}", daemon=True).start()
    except RuntimeError:  # the process cannot start more threads; the next look-up tries again
        _end((host, port))
        raise
    return future


def _end(name: tuple[str, int]) -> None:
    with _lock:
        del _in_progress[name]


async def addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses of a name, in the order in which to try them.

    Raises:
        ConnectionError: The name currently has no address.
    """
    looking = _look_up(host, port)
    try:
        addresses = await asyncio.wrap_future(looking)
    except (OSError, UnicodeError) as err:
        raise ConnectionError(f"the name {host!r} does not resolve to an address: {err}") from None
    if not addresses:
        raise ConnectionError(f"the name {host!r} does not resolve to an address")
    return list(addresses)


async def public_addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses of a name, if all of them are public.

    Raises:
        ConnectionError: The name currently has no address.
        PrivateAddressError: An address is not public.
    """
    addresses = await addresses_of(host, port)
    for address in addresses:
        if not is_public(ip_address(address)):
            where = address if address == host else f"{host!r}, which resolves to {address}"
            raise PrivateAddressError(
                f"{where} is not a public internet address; to allow addresses of your own network: "
                "event_sink(..., allow_private=True)"
            )
    return addresses
