"""``POST /v1/signals``: sends a signal to the run that waits for it."""

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
    """API that sends signals."""

    def __init__(self, client: steporal.Client) -> None:
        self._client = client

    async def send(self, request: Request) -> Response:
        """Send a signal; respond with ``{"data": {"run_id": ...}}``, or 404 if no run waits for it."""
        signal, data = await read_json(request, _signal_of)
        try:
            sent = await self._client.send_signal(signal, data)
        except (NonRetryableError, ValueError) as err:  # the name or the data is not valid
            raise Problem(400, str(err)) from None
        except SendSignalError as err:
            raise of_temporal(SendSignalError(str(err))) from None  # 503 for any cause: 404 means that no run waits
        if sent.run_id is None:
            raise Problem(404, f"no run waits for the signal {signal!r}")
        return enveloped({"run_id": sent.run_id})


def _signal_of(body: JSON) -> tuple[str, JSON]:
    fields = object_of(body)
    signal, data = fields.get("signal"), fields.get("data")
    if not isinstance(signal, str) or not signal.strip():
        raise Problem(400, f"signal is {signal!r:.80}; it must be the name of a signal, a string that is not empty")
    try:
        check_json(signal, "signal", "the body")
        check_json(data, "data", "the body")
    except InvalidEventError as err:
        raise Problem(400, str(err)) from None
    return signal, data
