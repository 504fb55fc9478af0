"""Access to endpoints: a key is required, or where none is required, foreign web pages are refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from .answers import Problem
from .keys import Ring
from .memory import body_of

Endpoint = Callable[[Request], Awaitable[Response]]

_PRIVATE_ENDS = (".localhost", ".internal", ".local", ".test")
"""Suffixes of names that nobody can register, and that strangers therefore cannot make resolve to this machine."""


def guarded(endpoint: Endpoint, keys: Ring, *, what: str, variable: str, pages: Collection[str] = ()) -> Endpoint:
    """Return an endpoint that requires a key.

    Args:
        endpoint: The endpoint to protect.
        keys: The keys.
        what: The name of the keys in messages.
        variable: The environment variable of the keys.
        pages: See :func:`admits`.
    """

    async def checked(request: Request) -> Response:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if not admits(keys, request, key.strip() if scheme.lower() == "bearer" else None, pages):
            why = f"{what} key not found; send a header: Authorization: Bearer KEY"
            if keys.is_closed:
                why = f"no {what} keys are configured: set {variable}"
            raise Problem(401, why, headers={"WWW-Authenticate": "Bearer"})
        return await endpoint(request)

    return checked


def admits(keys: Ring, request: Request, key: str | None, pages: Collection[str] = ()) -> bool:
    """Return whether a request may proceed; its memory then counts towards its key's share.

    Args:
        keys: The valid keys.
        request: The request.
        key: The request's key; None if it has none.
        pages: Origins of web pages, beside those of this machine, that may send requests if no key is required.

    Raises:
        Problem: 403: no key is required, and a foreign web page sent the request.
    """
    if keys.is_open:
        refuse_pages(request, pages)
        return True
    if key is None or not keys.accepts(key):
        return False
    body_of(request).sender = key
    return True


def refuse_pages(request: Request, allowed: Collection[str] = ()) -> None:
    """Refuse a request that a browser sends for a foreign web page.

    A page may send requests to any address, including this machine's, and without a preflight request if they look like
    those of a form. The browser adds only the page's origin. A page whose own name was made to resolve to this machine
    can also read the responses; the ``Host`` header then contains that name.

    Raises:
        Problem: 403: such a page sent the request.
    """
    host_header, origin = request.headers.get("host"), request.headers.get("origin")
    host = _name_of(f"//{host_header}")
    if host_header and not _is_private(host):
        raise Problem(
            403,
            f"the host is {host_header[:200]!r}, and no key is required here: use an address, or a name such as "
            "localhost; or set keys",
        )
    if origin is None or origin in allowed:
        return
    if (page := _name_of(origin)) != host and not _is_loopback(page):
        raise Problem(403, f"pages of {origin[:200]!r} may not send requests while no key is required; set keys")


def _name_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_private(host: str) -> bool:
    """Return whether a host is an address, or a name that strangers cannot register."""
    return _address(host) is not None or (host != "" and ("." not in host or host.endswith(_PRIVATE_ENDS)))


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address is not None else host == "localhost" or host.endswith(".localhost")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
