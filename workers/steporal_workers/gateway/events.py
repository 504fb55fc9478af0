"""``POST /e/{key}``: Inngest's event API."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from temporalio.service import RPCError, RPCStatusCode

import steporal
from steporal.errors import EncryptionError, EventTooLargeError, InvalidEventError, SendEventError
from steporal.events import MAX_EVENTS, ReceivedEvent, prepare_events
from steporal.types import JSON

from . import seeds
from .answers import Problem, answer, logger, of_keys
from .bodies import read_json, type_name
from .guard import admits
from .keys import EVENT_KEYS, Ring

_INTERNAL = "_inngest"
"""Key of an event's data that Inngest's server reserves."""

_FIELDS = ("name", "data", "id", "ts", "v")


class EventApi:
    """API that receives events from producers."""

    def __init__(self, client: steporal.Client, keys: Ring) -> None:
        self._client = client
        self._keys = keys

    async def receive(self, request: Request) -> Response:
        """Send the events of a request; respond with ``{"ids": [...], "status": 200}``."""
        try:
            ids = await self._send(request)
        except Problem as problem:
            problem.added.setdefault("ids", [])
            raise
        return answer({"ids": ids, "status": 200})

    async def _send(self, request: Request) -> list[str]:
        if not admits(self._keys, request, request.path_params["key"]):
            no_keys = f"no event keys are configured: set {EVENT_KEYS}"
            raise Problem(401, no_keys if self._keys.is_closed else "Event key not found")
        environment = request.headers.get("x-inngest-env")
        if environment and logger.isEnabledFor(logging.DEBUG):
            logger.debug("events for the environment %r are sent to this namespace, the only one", environment)
        events = await read_json(request, partial(_prepared, _seed(request)))
        try:
            return (await self._client.send_prepared(events)).ids
        except SendEventError as err:
            if isinstance(err.__cause__, RPCError) and err.__cause__.status == RPCStatusCode.INVALID_ARGUMENT:
                raise Problem(400, f"{err}; Temporal would refuse it again", {"ids": list(err.ids)}) from None
            logger.warning("%s", err)
            raise Problem(
                503, f"{err}; send the same request again", {"ids": list(err.ids)}, headers={"Retry-After": "1"}
            ) from None
        except EncryptionError as err:
            raise of_keys(err) from None


def _seed(request: Request) -> seeds.IdSeed:
    header = request.headers.get(seeds.HEADER)
    seed = seeds.IdSeed.parse(header) if header else None
    if header and seed is None:
        logger.warning(
            "%s is %r, not {millis},{base64 of 10 bytes}, and is ignored; a retry may start runs twice",
            seeds.HEADER,
            header[:80],
        )
    return seed or seeds.IdSeed.new()


def _prepared(seed: seeds.IdSeed, body: JSON) -> list[ReceivedEvent]:
    """Return the events of a body, checked."""
    if isinstance(body, list):
        if len(body) > MAX_EVENTS:
            raise Problem(400, f"{len(body):,} events in one request; the maximum is {MAX_EVENTS:,}")
        events: Any = [accepted(event, seed.id(i)) for i, event in enumerate(body)]
    elif isinstance(body, dict):
        events = accepted(body, seed.id(0))
    else:
        raise Problem(400, f"the body is a JSON {type_name(body)}; send an event, or an array of events")
    try:
        return prepare_events(events, new_id=seed.id, now_ms=int(time.time() * 1000))
    except EventTooLargeError as err:
        raise Problem(413, str(err)) from None
    except InvalidEventError as err:
        raise Problem(400, str(err)) from None


def accepted(event: JSON, id: str) -> JSON:
    """Return an event of Inngest's as an event of Steporal's.

    Values that Inngest's server reads as absent are left out: ``""`` as the id or version, ``0`` as ``ts``, null as
    anything. So are keys that Steporal's events do not have, such as ``user`` and ``meta``.

    Args:
        event: The event in the request; anything but an object is returned unchanged.
        id: The id for an event without one.
    """
    if not isinstance(event, dict):
        return event
    fields = {key: event[key] for key in _FIELDS if event.get(key) is not None}
    if fields.get("id", "") == "":
        fields["id"] = id
    if fields.get("v") == "":
        del fields["v"]
    ts = fields.get("ts")
    if isinstance(ts, float) and ts.is_integer():
        fields["ts"] = ts = int(ts)
    if ts == 0 and not isinstance(ts, bool):
        del fields["ts"]
    data = fields.get("data")
    if isinstance(data, dict) and _INTERNAL in data:
        fields["data"] = {key: value for key, value in data.items() if key != _INTERNAL}
    return fields
