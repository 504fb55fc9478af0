"""Who may use an endpoint: who has a key; and where none is needed, no web page of somebody else."""

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
"""Ends of names that nobody can register, so that no stranger can have them lead here."""


def guarded(endpoint: Endpoint, keys: Ring, *, what: str, variable: str, pages: Collection[str] = ()) -> Endpoint:
    """An endpoint for those who have a key.

    Args:
        endpoint: What answers them.
        keys: The keys.
        what: What they are called.
        variable: Where they are set.
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
    """Whether a request may go on; what it takes is counted as its key's from then on.

    Args:
        keys: The keys that are good.
        request: The request.
        key: What it has for a key; None if it has none.
        pages: Origins of web pages that may use what no key is needed for, beside those of this machine.

    Raises:
        Problem: 403: no key is needed, and a web page of somebody else has sent it.
    """
    if keys.is_open:
        refuse_pages(request, pages)
        return True
    if key is None or not keys.accepts(key):
        return False
    body_of(request).sender = key
    return True


def refuse_pages(request: Request, but: Collection[str] = ()) -> None:
    """Refuse what a browser sends for a page of somebody else.

    A page may send requests to any address, this machine's too, and without asking first, if they look like those of a
    form. It says of itself only its origin. A page whose own name was made to lead here also reads the answers; such a
    name is in the ``Host``.

    Raises:
        Problem: 403: such a page has sent it.
    """
    given, origin = request.headers.get("host"), request.headers.get("origin")
    host = _name_of(f"//{given}")
    if given and not _is_private(host):
        raise Problem(
            403,
            f"the host is {given[:200]!r}, and no key is needed here: use an address, or a name such as localhost; or "
            "set keys",
        )
    if origin is None or origin in but:
        return
    if (page := _name_of(origin)) != host and not _is_loopback(page):
        raise Problem(403, f"pages of {origin[:200]!r} may not use what no key is needed for; set keys")


def _name_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_private(host: str) -> bool:
    """Whether a host is an address, or a name that no stranger can have."""
    return _address(host) is not None or (host != "" and ("." not in host or host.endswith(_PRIVATE_ENDS)))


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address is not None else host == "localhost" or host.endswith(".localhost")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
