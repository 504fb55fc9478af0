"""Checks of URLs and headers before anything is sent or stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ..http import Secret
from ..values.type_names import shown

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = ("connection", "content-length", "transfer-encoding")


def check_method(value: object) -> None:
    """Check an HTTP method, in any case."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError(f"method is {shown(value)}; it takes a method such as 'GET' or 'POST'")


def check_url(value: object, what: str = "url") -> SplitResult:
    """Return the parts of an absolute ``http`` or ``https`` URL without a password."""
    accepted = "it takes an absolute URL such as 'https://api.example.com/orders'"
    if not isinstance(value, str):
        raise TypeError(f"{what} is {shown(value)} ({type(value).__name__}); {accepted}")
    if not value.isprintable() or " " in value:
        raise ValueError(f"{what} is {value!r}, which contains a space or a control character; {accepted}")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as err:
        raise ValueError(f"{what} is {value!r}: {err}; {accepted}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{what} is {value!r}; {accepted}, with http or https")
    if not parts.hostname or port == 0:
        raise ValueError(f"{what} is {value!r}, which contains no host; {accepted}")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            f"{what} for {parts.hostname!r} contains a user or password, which would be stored; send it in a header, "
            "as steporal.secret('NAME')"
        )
    return parts


def origin_of(parts: SplitResult) -> str:
    """Return the part of a URL that is never secret: ``https://api.example.com``."""
    return f"{parts.scheme}://{parts.netloc}"


def check_headers(value: object, *, ours: tuple[str, ...] = ()) -> dict[str, str | Secret]:
    """Return headers that can be sent.

    Args:
        value: The user's value.
        ours: Additional names that users may not set, in lower case; a name that ends with ``-`` is a prefix.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"headers is {shown(value)}; it takes a dict of names and values")
    seen: dict[str, str] = {}
    for name, content in value.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ValueError(f"headers has the name {shown(name)}; names are letters, digits and dashes")
        lower = name.lower()
        if lower in _OURS or any(lower == own or (own.endswith("-") and lower.startswith(own)) for own in ours):
            raise ValueError(f"headers contains {name!r}, which Steporal sets itself")
        if lower in seen:
            raise ValueError(f"headers contains both {seen[lower]!r} and {name!r}, which are the same")
        seen[lower] = name
        check_header_value(content, f"header {name!r}")
    return dict(value)


def check_header_value(value: object, what: str) -> None:
    """Check a header value: text, or a secret."""
    text = value.prefix if isinstance(value, Secret) else value
    if not isinstance(text, str):
        raise TypeError(f"{what} is {shown(value)}; it takes text, or steporal.secret('NAME')")
    if not text.isascii() or not text.replace("\t", " ").isprintable():
        raise ValueError(f"{what} is {value!r}; it takes printable ASCII on one line")


def check_params(value: object) -> dict[str, str | Secret]:
    """Return query parameters as text."""
    if not isinstance(value, Mapping):
        raise TypeError(f"params is {shown(value)}; it takes a dict of names and values")
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"params has the name {shown(name)}; names are strings")
    return {name: _param(item, f"parameter {name!r}") for name, item in value.items()}


def _param(value: Any, what: str) -> str | Secret:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | Secret):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise TypeError(
        f"{what} is {shown(value)} ({type(value).__name__}); it takes text, a number or steporal.secret('NAME')"
    )
