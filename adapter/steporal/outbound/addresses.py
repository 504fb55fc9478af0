"""The addresses that a name leads to, and which of them a sink may connect to.

A sink's URL may be a customer's. One that leads into the network of the worker would let the customer talk to what
trusts that network: metadata services, databases, admin pages. So the addresses of a name are checked, and the
connection is made to one of the addresses that were checked, not to the name: between a check and a second look-up of
the name, its owner could change what it leads to (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from .problems import PrivateAddressError

# Of IANA's registries of special-purpose addresses, as of 2025: those of the standard library are as old as the Python.
# https://www.iana.org/assignments/iana-ipv4-special-registry
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
# All of the internet is in 2000::/3, so that loopback, unique local (fd00:ec2::254 is the metadata service of AWS),
# link-local, site-local, multicast, IPv4-compatible, translated and local-use NAT64 (64:ff9b:1::/48) addresses are not.
# https://www.iana.org/assignments/ipv6-address-space
# https://www.iana.org/assignments/iana-ipv6-special-registry
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
    """Whether an address is one of the internet; the IPv4 address that an IPv6 one stands for has to be, too."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_IPV4)
    if (inner := _embedded(address)) is not None:
        return is_public(inner)
    return address in _INTERNET and not any(address in network for network in _NOT_PUBLIC_IPV6)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for."""
    if address in _MAPPED or address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _6TO4:
        return IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return None


def is_plainly_private(host: str) -> bool:
    """Whether a host is private as it is written, without a look-up: an address, or ``localhost``."""
    try:
        return not is_public(ip_address(host))
    except ValueError:
        name = host.rstrip(".").lower()
        return name == "localhost" or name.endswith(".localhost")


MAX_LOOK_UPS = 500
"""Names that a process looks up at a time, each in a thread. Who makes up names whose servers do not answer could
otherwise take all threads that a process may have."""

_under_way: dict[tuple[str, int], Future[list[str]]] = {}
_lock = threading.Lock()


def _look_up(host: str, port: int) -> Future[list[str]]:
    """Look a name up in a thread of its own, or join the look-up of the same name that is under way.

    A look-up cannot be cancelled, and the name's owner decides how long it takes: name servers that do not answer keep
    it for half a minute. ``loop.getaddrinfo`` shares a handful of threads with everything else in the process, and one
    such name would take them all.
    """
    with _lock:
        if (known := _under_way.get((host, port))) is not None:
            return known
        if len(_under_way) >= MAX_LOOK_UPS:
            raise ConnectionError(f"{host!r} is not looked up now, as {len(_under_way):,} other names are")
        future = _under_way[host, port] = Future()
        future.set_running_or_notify_cancel()  # or who waits no longer would cancel it for the others

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except BaseException as err:
            _end((host, port))
            future.set_exception(err)
        else:
            _end((host, port))
            future.set_result(list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found)))

    try:
        threading.Thread(target=look_up, name=f"steporal-look-up-{host}", daemon=True).start()
    except RuntimeError:  # the process can have no more threads; the next look-up tries again
        _end((host, port))
        raise
    return future


def _end(name: tuple[str, int]) -> None:
    with _lock:
        del _under_way[name]


async def addresses_of(host: str, port: int) -> list[str]:
    """The addresses that a name leads to, in the order in which to try them.

    Raises:
        ConnectionError: It leads to none, for now.
    """
    looking = _look_up(host, port)
    try:
        found = await asyncio.wrap_future(looking)
    except (OSError, UnicodeError) as err:
        raise ConnectionError(f"the name {host!r} does not resolve to an address: {err}") from None
    if not found:
        raise ConnectionError(f"the name {host!r} does not resolve to an address")
    return list(found)


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
