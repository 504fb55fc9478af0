"""``/health`` and ``/ready``: what load balancers ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from temporalio.service import RPCError

import steporal
from steporal.errors import EncryptionError, TemporalCallError
from steporal.events import FINISHED
from steporal.routing.catalog.reading import Catalog

from .answers import Problem, answer

_SECONDS = 3.0


class Probes:
    """Says whether the process is up, and whether it can do its work."""

    def __init__(self, client: steporal.Client, is_stopping: Callable[[], bool]) -> None:
        self._client = client
        self._is_stopping = is_stopping
        self._has_read_all = False

    async def live(self, request: Request) -> Response:
        """The process is up."""
        return answer({"status": 200, "message": "OK"})

    async def ready(self, request: Request) -> Response:
        """Temporal answers, and the catalog can be read, as of the last two seconds; and the process goes on."""
        if self._is_stopping():
            raise Problem(503, "the gateway is stopping")
        try:
            async with asyncio.timeout(_SECONDS):
                temporal = await self._client.connect()
                await self._read_catalog(self._client.sending.dispatcher(temporal).catalog)
        except EncryptionError as err:
            raise Problem(503, str(err)) from None
        except (RPCError, TemporalCallError, TimeoutError) as err:
            why = f"no answer in {_SECONDS:g} seconds" if isinstance(err, TimeoutError) else str(err)
            raise Problem(503, f"Temporal did not answer: {why}") from None
        return answer({"status": 200, "message": "OK"})

    async def _read_catalog(self, catalog: Catalog) -> None:
        """Read all of the catalog once, for which the process needs all keys, and then what every event concerns."""
        await (catalog.read([FINISHED]) if self._has_read_all else catalog.read_all())
        self._has_read_all = True
