"""``POST /v1/signals``: a signal to the run that waits for it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

import steporal
from steporal.errors import InvalidEventError, NonRetryableError, SendSignalError
from steporal.events import check_json
from steporal.types import JSON

from .answers import Problem, enveloped, of_temporal
from .bodies import object_of, read_json


class SignalApi:
    """Takes signals."""

    def __init__(self, client: steporal.Client) -> None:
        self._client = client

    async def send(self, request: Request) -> Response:
        """Hand a signal over: ``{"data": {"run_id": ...}}``; 404 if no run waits for it."""
        signal, data = await read_json(request, _signal_of)
        try:
            sent = await self._client.send_signal(signal, data)
        except (NonRetryableError, ValueError) as err:  # what is wrong with the name or the data
            raise Problem(400, str(err)) from None
        except SendSignalError as err:
            raise of_temporal(SendSignalError(str(err))) from None  # 503, whatever the cause: 404 is for no waiting run
        if sent.run_id is None:
            raise Problem(404, f"no run waits for the signal {signal!r}")
        return enveloped({"run_id": sent.run_id})


def _signal_of(body: JSON) -> tuple[str, JSON]:
    given = object_of(body)
    signal, data = given.get("signal"), given.get("data")
    if not isinstance(signal, str) or not signal.strip():
        raise Problem(400, f"signal is {signal!r:.80}; it takes a signal's name, which is a string that is not empty")
    try:
        check_json(signal, "signal", "the body")
        check_json(data, "data", "the body")
    except InvalidEventError as err:
        raise Problem(400, str(err)) from None
    return signal, data
