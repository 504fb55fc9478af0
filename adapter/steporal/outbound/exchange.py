"""One HTTP request and its response. Only this module uses httpx, which it imports when it is first called.

It uses httpx's transports and not its client: a client keeps cookies, so that one run would send another's, and it logs
URLs with their queries, which may be secret. Each request has its own connection. Kept connections would be found by
address and port only, so that two names with the same address would share them.
"""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ..durations import format_duration
from ..errors import InvalidArgumentError
from .addresses import addresses_of
from .content import Body, BodyBrokenError, BodyTooLargeError, Coding, coding_of
from .problems import ResponseEncodingError, ResponseTooLargeError

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 5

Addresses = Callable[[str, int], Awaitable[list[str]]]
"""Function that returns the addresses to connect to, for a host and a port."""

_CHUNK = 16 * 1024
"""Bytes of a packed body that are unpacked at a time; they can expand to 16 MiB at most."""

_CONNECT_SECONDS = 3.0
"""For an address that is not the last one of its name: TCP has asked twice by then."""

_PORTS = {"http": 80, "https": 443}
_TO_TLS = [("http", 80), ("https", 443)]
_REDIRECTS_OF_ANY_METHOD = (307, 308)
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "steporal"}
"""Default headers."""


@dataclass(frozen=True, slots=True)
class Request:
    """Request with its secrets: not to be logged, stored or shown.

    Attributes:
        timeout: The timeout of the whole request, including redirects.
        max_response_bytes: The size limit of the response body.
        shown: The URL for messages.
    """

    method: str
    url: str
    headers: Sequence[tuple[str, str]]
    content: bytes | None
    timeout: timedelta
    max_response_bytes: int
    shown: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Response to a request.

    Attributes:
        headers: The headers by lower-case name; repeated ones are joined by ``", "``.
    """

    status: int
    headers: dict[str, str]
    body: bytes


def phrase(status: int) -> str:
    """Return a status with its name: ``503 Service Unavailable``."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


async def exchange(request: Request, addresses: Addresses | None = None, *, read: bool = True) -> Answer:
    """Make a request, and follow redirects to the same host.

    A redirect is followed if method and body stay the same: any redirect for ``GET`` and ``HEAD``, 307 and 308 for
    other methods. Because headers may be secret, redirects to another host or port, or from ``https`` to ``http``, are
    not followed; such a response is returned unchanged.

    Args:
        request: The request.
        addresses: The addresses to connect to; without it, those of the name, or a proxy if the environment names
            one.
        read: Whether to read the body of a response.

    Raises:
        ConnectionError: The connection could not be made, or broke.
        TimeoutError: The request took too long.
        ResponseTooLargeError: The body is too large.
        ResponseEncodingError: The body has an unsupported coding.
        InvalidArgumentError: The request is not valid.
    """
    import httpx

    what = f"{request.method} {request.shown}"
    try:
        async with asyncio.timeout(request.timeout.total_seconds()):
            for _ in range(MAX_REDIRECTS + 1):
                answer = await _exchange_once(request, addresses, read)
                following = _redirect(request, answer)
                if following is None:
                    return answer
                request = following
    except (TimeoutError, httpx.TimeoutException):
        raise TimeoutError(f"{what} took longer than {format_duration(request.timeout)}") from None
    except httpx.ConnectError as err:
        raise ConnectionError(f"{what}: cannot connect: {err}") from None
    except (httpx.InvalidURL, httpx.LocalProtocolError, httpx.UnsupportedProtocol) as err:
        # httpx quotes the header or URL that it rejects, which may be secret
        raise InvalidArgumentError(f"{what} cannot be sent ({type(err).__name__}); check its headers") from None
    except (httpx.TransportError, httpx.DecodingError) as err:
        raise ConnectionError(f"{what}: the connection broke: {type(err).__name__}") from None
    raise ConnectionError(f"{what} was redirected more than {MAX_REDIRECTS} times")


async def _exchange_once(request: Request, addresses: Addresses | None, read: bool) -> Answer:
    async with _answered(request, addresses) as response:
        headers = dict(response.headers.items())
        if not read or request.method == "HEAD":
            return Answer(response.status_code, headers, b"")
        announced = headers.get("content-length", "")
        if announced.isdigit() and int(announced) > request.max_response_bytes:
            raise _too_large(request, f"{int(announced):,}")
        body = Body(_coding_of(request, headers), request.max_response_bytes)
        try:
            async for chunk in response.aiter_raw(_CHUNK):
                body.add(chunk)
            return Answer(response.status_code, headers, body.whole())
        except BodyTooLargeError:
            raise _too_large(request, f"more than {request.max_response_bytes:,}") from None
        except BodyBrokenError:
            raise ConnectionError(
                f"{request.method} {request.shown} returned a body that is not packed as its header declares"
            ) from None


def _coding_of(request: Request, headers: Mapping[str, str]) -> Coding:
    header = headers.get("content-encoding", "")
    coding = coding_of(header)
    if coding is None:
        raise ResponseEncodingError(
            f"{request.method} {request.shown} returned a body that is packed as {header[:100]!r}; supported are gzip "
            "and deflate"
        )
    return coding


def _too_large(request: Request, size: str) -> ResponseTooLargeError:
    return ResponseTooLargeError(
        f"{request.method} {request.shown} returned a body of {size} bytes; "
        f"max_response_bytes is {request.max_response_bytes:,}"
    )


@asynccontextmanager
async def _answered(request: Request, addresses: Addresses | None) -> AsyncIterator[httpx.Response]:
    """Yield the response, with only its head read."""
    import httpx

    url = httpx.URL(request.url)
    proxy = _proxy(url.scheme, url.host) if addresses is None else None
    if proxy is None:
        hosts = await (addresses or addresses_of)(url.raw_host.decode(), url.port or _PORTS.get(url.scheme, 0))
    else:
        hosts = [url.host]
        await _look_up_proxy(proxy)
    async with httpx.AsyncHTTPTransport(verify=_tls(), proxy=proxy) as transport:
        for address in hosts:
            longest = request.timeout.total_seconds()
            connect = longest if address == hosts[-1] else min(longest / len(hosts), _CONNECT_SECONDS)
            try:
                response = await transport.handle_async_request(_addressed(request, url, address, connect))
                break
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if address == hosts[-1]:
                    raise
        try:
            yield response
        finally:
            await response.aclose()


def _addressed(request: Request, url: httpx.URL, address: str, connect: float) -> httpx.Request:
    """Return a request to one of the addresses of its host; TLS still verifies the host's certificate."""
    import httpx

    extensions: dict[str, Any] = {
        "timeout": httpx.Timeout(request.timeout.total_seconds(), connect=connect).as_dict(),
    }
    names = {name.lower() for name, _ in request.headers}
    headers = [*request.headers, *((name, value) for name, value in _HEADERS.items() if name not in names)]
    if address != url.host:
        if "host" not in names:
            headers.append(("host", url.netloc.decode()))
        extensions["sni_hostname"] = url.raw_host.decode()
        url = url.copy_with(host=address)
    return httpx.Request(request.method, url, headers=headers, content=request.content, extensions=extensions)


def _redirect(request: Request, answer: Answer) -> Request | None:
    """Return the request that follows a redirect, or None."""
    import httpx

    allowed = _REDIRECTS if request.method in ("GET", "HEAD") else _REDIRECTS_OF_ANY_METHOD
    if answer.status not in allowed or "location" not in answer.headers:
        return None
    try:
        before = httpx.URL(request.url)
        after = before.join(answer.headers["location"])
    except httpx.InvalidURL:
        return None
    ports = [(url.scheme, url.port or _PORTS.get(url.scheme)) for url in (before, after)]
    if after.host != before.host or (ports[0] != ports[1] and ports != _TO_TLS) or after.userinfo:
        return None
    return replace(request, url=str(after))


async def _look_up_proxy(proxy: str) -> None:
    """Look up the name of a proxy as other names are; httpx does it again, in threads that all of a process shares.

    Raises:
        ConnectionError: It leads to no address, for now.
    """
    import httpx

    url = httpx.URL(proxy)
    await addresses_of(url.raw_host.decode(), url.port or 0)


def _proxy(scheme: str, host: str) -> str | None:
    """Return the proxy in the environment: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Return the context that verifies servers; cached, as loading the certificates takes as long as many requests."""
    import httpx

    return httpx.create_ssl_context()
