"""Values, texts and errors in the events of a history, decoded by the data converter of the run's workers."""

from __future__ import annotations

import json
from typing import Any

from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure as FailureMessage
from temporalio.api.history.v1 import HistoryEvent
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError, FailureError

from ..closures.calls import Call
from ..errors import UnknownKeyError
from ..runtime.children import was_cancelled
from ..types import JSON
from ..values.converter import from_raw
from ..values.encrypted import UNREADABLE, check_failure_decrypted, check_readable
from ..values.readable import plain
from ..wire.failures import call_of, failure_of, is_cancellation
from ..wire.memo import Outcome
from ..wire.run_result import read_result

CANCELLED = was_cancelled()
"""Outcome of a step or an invoked run that was cancelled."""


class Values:
    """Reader of the values in a history.

    A run that another execution continues gets a value as it is (``json``, ``outcome``); people get a value that can be
    printed as JSON (``shown``). A value that cannot be decrypted raises ``UnknownKeyError``.

    Args:
        converter: The data converter of the run's workers.
    """

    def __init__(self, converter: DataConverter) -> None:
        self._converter = converter

    # --- values as they are ----------------------------------------------------------------------------------------

    async def json(self, payload: Payload) -> JSON:
        """Return a value."""
        return self._read(await self._raw(payload))

    async def first(self, payloads: Payloads) -> JSON:
        """Return the first of some values; None if there are none."""
        return await self.json(payloads.payloads[0]) if payloads.payloads else None

    async def message(self, payloads: Payloads) -> JSON:
        """Return the message of a signal; None if it cannot be read, as in the run itself."""
        if not payloads.payloads:
            return None
        raw = await self._raw(payloads.payloads[0])
        try:
            return self._read(raw)
        except UnknownKeyError:
            raise
        except Exception:
            return None

    async def outcome(self, payloads: Payloads) -> Outcome:
        """Return the result of an activity as an outcome, with the description of the call."""
        if not payloads.payloads:
            return Outcome()
        raw = await self._raw(payloads.payloads[0])
        return Outcome(self._read(raw), call=Call.of_result(raw))

    async def returned(self, payloads: Payloads) -> JSON:
        """Return the result of a run as the step that invoked it gets it."""
        if not payloads.payloads:
            return None
        raw = await self._raw(payloads.payloads[0])
        return read_result(raw, self._read).as_json()

    async def summary(self, event: HistoryEvent) -> str:
        """Return the summary of the command that caused an event; empty if it has none."""
        if not event.user_metadata.HasField("summary"):
            return ""
        (text,) = await self._converter.decode([event.user_metadata.summary], [str])
        return str(text)

    async def _raw(self, payload: Payload) -> RawValue:
        (raw,) = await self._converter.decode([payload], [RawValue])
        assert isinstance(raw, RawValue)
        return raw

    def _read(self, raw: RawValue) -> Any:
        if raw.payload.metadata.get("encoding") != b"json/plain":
            check_readable(raw.payload)
            return self._converter.payload_converter.from_payload(raw.payload)
        return from_raw(raw)

    # --- values for people -----------------------------------------------------------------------------------------

    async def shown(self, payload: Payload) -> Any:
        """Return a value as JSON, or as text if it is not JSON."""
        raw = await self._raw(payload)
        value = self._read(raw)
        if raw.payload.metadata.get("encoding") == b"json/plain":
            return value
        try:
            return json.loads(json.dumps(value))
        except (TypeError, ValueError):
            return repr(value)

    async def shown_result(self, payloads: Payloads) -> JSON:
        """Return a result; a marker if somebody else has answered with an unreadable one."""
        try:
            return plain(await self.shown(payloads.payloads[0])) if payloads.payloads else None
        except UnknownKeyError:
            raise
        except Exception:
            return UNREADABLE

    # --- errors ----------------------------------------------------------------------------------------------------

    async def error(self, failure: FailureMessage) -> BaseException:
        """Return an error."""
        decoded = FailureMessage()  # decoding changes the message, which other readers of the event decode, too
        decoded.CopyFrom(failure)
        error = await self._converter.decode_failure(decoded)
        check_failure_decrypted(error)
        return error

    async def failed(self, failure: FailureMessage, max_attempts: int) -> Outcome:
        """Return an error as the outcome of a step.

        Args:
            failure: The error.
            max_attempts: The number of attempts that the error ended; 0 if unknown.
        """
        error = await self.error(failure)
        if is_cancellation(error):
            return CANCELLED
        assert isinstance(error, FailureError)
        return Outcome(failure=failure_of(error, max_attempts), call=call_of(error))


def message_of(error: BaseException) -> str:
    """Return the message of an error."""
    return error.message if isinstance(error, FailureError) else str(error)


def line_of(error: BaseException) -> str:
    """Return an error in one line: its class, if the user's code raised it, and its message."""
    kind = error.type if isinstance(error, ApplicationError) else None
    return f"{kind}: {message_of(error)}" if kind else message_of(error)
