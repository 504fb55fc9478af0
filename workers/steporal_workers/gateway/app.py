"""Gateway as an ASGI application: its paths, and the keys for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from temporalio.common import MetricMeter

import steporal

from . import guard
from .answers import HANDLERS, answer
from .events import EventApi
from .guard import Endpoint
from .invoke import InvokeApi
from .keys import API_KEYS, Keys
from .limits import LastAnswers, StrictFraming
from .memory import BodyMemory
from .metering import Metered
from .openapi import DESCRIPTION
from .probes import Probes
from .runs import RunApi
from .signals import SignalApi


class TextConvertor(PathConvertor):
    """Path parameter that matches the rest of a path: ids may contain slashes and new lines."""

    regex = "(?s:.*)"


register_url_convertor("text", TextConvertor())

_HOUR = 3600


def create_app(
    client: steporal.Client,
    keys: Keys,
    *,
    is_stopping: Callable[[], bool] = lambda: False,
    meter: MetricMeter | None = None,
    is_traced: bool = False,
) -> Starlette:
    """Return the gateway of the namespace that a client is connected to.

    Args:
        client: Sends the events; also checks the input of its own workflows before a run is started.
        keys: The keys of the gateway.
        is_stopping: Returns whether the process is about to end, and so is no longer ready.
        meter: The meter for metrics of requests; None turns them off.
        is_traced: Whether requests have spans.
    """
    events, signals, runs = EventApi(client, keys.event), SignalApi(client), RunApi(client)
    invoke, probes = InvokeApi(client), Probes(client, is_stopping)
    browsers = Middleware(
        CORSMiddleware, allow_origins=["*"], allow_methods=["POST"], allow_headers=["*"], max_age=_HOUR
    )

    def guarded(endpoint: Endpoint) -> Endpoint:
        return guard.guarded(endpoint, keys.api, what="API", variable=API_KEYS)

    routes = [
        _AnyPath("/e", routes=[Route("/{key:text}", events.receive, methods=["POST"])], middleware=[browsers]),
        Route("/v1/signals", guarded(signals.send), methods=["POST"]),
        Route("/v1/events/{id:text}/runs", guarded(runs.of_event), methods=["GET"]),
        Route("/v1/runs/{id:text}", guarded(runs.one), methods=["GET", "DELETE"]),
        Route("/invoke/{workflow:text}", guarded(invoke.start), methods=["POST"]),
        Route("/health", probes.live, methods=["GET"]),
        Route("/live", probes.live, methods=["GET"]),
        Route("/ready", probes.ready, methods=["GET"]),
        Route("/openapi.json", _describe, methods=["GET"]),
    ]
    metered = [] if meter is None else [Middleware(Metered, meter=meter, routes=routes)]
    app = Starlette(
        routes=routes,
        middleware=[
            *metered,
            *_tracing(is_traced, routes),
            Middleware(StrictFraming),
            Middleware(BodyMemory),
            Middleware(LastAnswers, is_stopping=is_stopping),
        ],
        exception_handlers=HANDLERS,
    )
    app.router.redirect_slashes = False
    return app


def _tracing(is_traced: bool, routes: Sequence[BaseRoute]) -> list[Middleware]:
    if not is_traced:
        return []
    from .traces import Traced

    return [Middleware(Traced, routes=routes)]


class _AnyPath(Mount):
    """Mount that matches any path below it, including new lines."""

    def __init__(self, path: str, routes: Sequence[BaseRoute], middleware: Sequence[Middleware]) -> None:
        super().__init__(path, routes=routes, middleware=middleware)
        self.path_regex = re.compile(f"^{re.escape(path)}/(?P<path>(?s:.*))$")


async def _describe(request: Request) -> Response:
    return _described


_described = answer(DESCRIPTION)
