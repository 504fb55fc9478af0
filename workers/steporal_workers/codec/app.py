"""Codec server as an ASGI application: encrypts and decrypts values for Temporal's UI and command line.

Both post ``{"payloads": [...]}``, as Protobuf JSON, to ``/decode`` and ``/encode``, and receive a response of the same
form (https://docs.temporal.io/codec-server).
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
"""Limit of payloads per request; the UI sends those of an event, or of a page of events."""

_COPIES = 6
"""Of a payload: as it is read, as it becomes, and both as Base64 and JSON of what it becomes."""

_BYTES_OF_PAYLOAD = 3 * 1024
"""Bytes of memory that a payload takes beside its data, for its metadata."""

_HOUR = 3600
_HEADERS = ("Authorization", "Authorization-Extras", "Content-Type", "X-Namespace")
"""Headers that Temporal's UI sends; the first two only if it is configured to pass on the user's credentials."""


def create_codec_app(
    codec: PayloadCodec, keys: Ring, origins: Collection[str], *, is_stopping: Callable[[], bool] = lambda: False
) -> Starlette:
    """Return a codec server.

    Args:
        codec: Encrypts and decrypts payloads.
        keys: The access keys.
        origins: The origins of the web pages that may use the server.
        is_stopping: Returns whether the process is about to end, and so is no longer ready.
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
        allow_credentials=True,  # cookies, for a proxy in front of this server
        allow_private_network=True,  # the UI of Temporal Cloud calls a server that only its users can reach
        max_age=_HOUR,
    )
    app = Starlette(
        routes=[
            *(
                Route(prefix + path, endpoint, methods=["POST"])
                for path, endpoint in (("/encode", of(codec.encode)), ("/decode", of(codec.decode)))
                for prefix in ("", "/{namespace}")  # Temporal's UI and CLI add the namespace if so configured
            ),
            Route("/live", live, methods=["GET"]),
            Route("/ready", ready, methods=["GET"]),
        ],
        middleware=[pages, Middleware(StrictFraming), Middleware(BodyMemory)],
        exception_handlers=HANDLERS,
    )
    app.router.redirect_slashes = False  # a redirect would go to the host that the request names
    return app


def _of_known_pages(endpoint: Endpoint, origins: Collection[str]) -> Endpoint:
    """Return an endpoint that refuses other web pages, even one whose host name resolves to this machine."""

    async def checked(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin is not None and origin not in origins:
            raise Problem(
                403, f"pages of {origin[:200]!r} may not use the codec server; add the origin to STEPORAL_CODEC_ORIGINS"
            )
        return await endpoint(request)

    return checked


def _weight_of(payloads: Sequence[Payload]) -> int:
    """Return what payloads take beside the body that they were read from, until they are answered."""
    return sum(payload.ByteSize() for payload in payloads) * _COPIES + len(payloads) * _BYTES_OF_PAYLOAD


def _payloads_of(body: JSON) -> Sequence[Payload]:
    payloads = object_of(body).get("payloads")
    if not isinstance(payloads, list):
        raise Problem(400, 'the body has no payloads; send {"payloads": [...]}')
    if len(payloads) > MAX_PAYLOADS:
        raise Problem(400, f"{len(payloads):,} payloads in one request; the maximum is {MAX_PAYLOADS:,}")
    try:
        return ParseDict({"payloads": payloads}, Payloads(), ignore_unknown_fields=True).payloads
    except (ParseError, ValueError, json.JSONDecodeError) as err:
        raise Problem(400, f"the body contains something that is not a payload: {str(err)[:200]}") from None
