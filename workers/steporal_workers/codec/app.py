"""The codec server as an ASGI application: what Temporal's UI and command ask to read and write encrypted values.

Both post ``{"payloads": [...]}`` to ``/decode`` and ``/encode``, as JSON of Protobuf, and are answered with the same
(https://docs.temporal.io/codec-server).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.converter import PayloadCodec

from steporal.errors import EncryptionError
from steporal.types import JSON

from ..gateway.answers import HANDLERS, Problem, answer
from ..gateway.bodies import object_of, read_json
from ..gateway.guard import Endpoint, guarded
from ..gateway.keys import Ring
from ..gateway.limits import StrictFraming
from ..gateway.memory import BodyMemory, body_of

CODEC_KEYS = "STEPORAL_CODEC_KEYS"

MAX_PAYLOADS = 10_000
"""Of one request; the UI asks for those of an event, or of a page of them."""

_COPIES = 6
"""Of a payload: as it is read, as it becomes, and both as Base64 and JSON of what it becomes."""

_BYTES_OF_PAYLOAD = 3 * 1024
"""What a payload takes beside its bytes, with its metadata."""

_HOUR = 3600
_HEADERS = ("Authorization", "Authorization-Extras", "Content-Type", "X-Namespace")
"""What Temporal's UI sends; the first two only where it is told to pass on who has logged in."""


def create_codec_app(
    codec: PayloadCodec, keys: Ring, origins: Collection[str], *, is_stopping: Callable[[], bool] = lambda: False
) -> Starlette:
    """A codec server.

    Args:
        codec: What encrypts and decrypts.
        keys: Who may use it.
        origins: The origins of the web pages that may.
        is_stopping: Says whether the process is about to end, and is not ready any more.
    """

    def of(transform: Callable[[Sequence[Payload]], object]) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            payloads = await read_json(request, _payloads_of)
            body_of(request).take(_weight_of(payloads))
            try:
                changed: Sequence[Payload] = await transform(payloads)  # type: ignore[misc]
            except EncryptionError as err:
                raise Problem(400, str(err)) from None
            return answer(MessageToDict(Payloads(payloads=changed)))

        return _of_known_pages(guarded(endpoint, keys, what="Codec", variable=CODEC_KEYS, pages=origins), origins)

    async def live(request: Request) -> Response:
        return answer({"status": 200, "message": "OK"})

    async def ready(request: Request) -> Response:
        if is_stopping():
            raise Problem(503, "the codec server is stopping")
        return await live(request)

    pages = Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["POST"],
        allow_headers=_HEADERS,
        allow_credentials=True,  # cookies, for a proxy in front of it
        allow_private_network=True,  # the UI of Temporal Cloud, and a server that its users alone reach
        max_age=_HOUR,
    )
    app = Starlette(
        routes=[
            *(
                Route(prefix + path, endpoint, methods=["POST"])
                for path, endpoint in (("/encode", of(codec.encode)), ("/decode", of(codec.decode)))
                for prefix in ("", "/{namespace}")  # Temporal's UI and command put it there if they are told to
            ),
            Route("/live", live, methods=["GET"]),
            Route("/ready", ready, methods=["GET"]),
        ],
        middleware=[pages, Middleware(StrictFraming), Middleware(BodyMemory)],
        exception_handlers=HANDLERS,
    )
    app.router.redirect_slashes = False  # to the host that the request names
    return app


def _of_known_pages(endpoint: Endpoint, origins: Collection[str]) -> Endpoint:
    """An endpoint that answers no page but these: also not one whose name was made to lead to this machine."""

    async def checked(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin is not None and origin not in origins:
            raise Problem(403, f"pages of {origin[:200]!r} may not use the codec server: STEPORAL_CODEC_ORIGINS")
        return await endpoint(request)

    return checked


def _weight_of(payloads: Sequence[Payload]) -> int:
    """Return what payloads take beside the body that they were read from, until they are answered."""
    return sum(payload.ByteSize() for payload in payloads) * _COPIES + len(payloads) * _BYTES_OF_PAYLOAD


def _payloads_of(body: JSON) -> Sequence[Payload]:
    given = object_of(body).get("payloads")
    if not isinstance(given, list):
        raise Problem(400, 'the body has no payloads; it takes {"payloads": [...]}')
    if len(given) > MAX_PAYLOADS:
        raise Problem(400, f"{len(given):,} payloads in one request; the maximum is {MAX_PAYLOADS:,}")
    try:
        return ParseDict({"payloads": given}, Payloads(), ignore_unknown_fields=True).payloads
    except (ParseError, ValueError, json.JSONDecodeError) as err:
        raise Problem(400, f"the body contains something that is not a payload: {str(err)[:200]}") from None
