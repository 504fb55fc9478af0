"""Responses of the gateway: JSON, and errors in Inngest's format."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from temporalio.service import RPCError, RPCStatusCode

from steporal.errors import EncryptionError, TemporalCallError
from steporal.types import JSON

logger = logging.getLogger("steporal.gateway")


_MAX_MESSAGE_LENGTH = 4_000
"""In characters; a message may quote part of the request."""


_SAFE = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
"""Headers that keep browsers from showing a response as a page, and proxies from storing a run's result."""


class Problem(Exception):
    """Request error, answered with ``{"error": message, "status": status}``.

    Attributes:
        status: The HTTP status code.
        message: The mistake, and the values that are accepted.
        added: Further keys of the response.
        headers: Further headers of the response.
    """

    def __init__(
        self, status: int, message: str, added: Mapping[str, JSON] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.added = dict(added or {})
        self.headers = headers

    def response(self) -> Response:
        """Return the response."""
        message = (
            self.message if len(self.message) <= _MAX_MESSAGE_LENGTH else f"{self.message[: _MAX_MESSAGE_LENGTH - 1]}…"
        )
        return answer({**self.added, "error": message, "status": self.status}, self.status, self.headers)


def answer(data: JSON, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON response, in ASCII because a result may contain lone surrogates."""
    body = json.dumps(data, separators=(",", ":"))
    return Response(body, status, {**_SAFE, **(headers or {})}, media_type="application/json")


def enveloped(data: JSON) -> Response:
    """Return data in the envelope of Inngest's REST API."""
    return answer({"data": data, "metadata": {"fetched_at": iso(datetime.now(UTC)), "cached_until": None}})


def iso(moment: datetime) -> str:
    """Return a time in the format of Inngest's API, which is RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- errors --------------------------------------------------------------------------------------------------------


def of_temporal(error: RPCError | TemporalCallError) -> Problem:
    """Return the problem for an error of a call to Temporal."""
    error = error.__cause__ if isinstance(error.__cause__, RPCError) else error
    if isinstance(error, RPCError):
        if error.status == RPCStatusCode.INVALID_ARGUMENT:
            return Problem(400, f"Temporal rejected the request: {error.message}")
        if error.status == RPCStatusCode.NOT_FOUND:
            return Problem(404, f"Temporal did not find it: {error.message}")
    logger.warning("Temporal did not answer: %s", error)
    return Problem(503, f"Temporal did not answer: {error}; try again", headers={"Retry-After": "1"})


def of_keys(error: EncryptionError) -> Problem:
    """Return the problem for a value that is encrypted with an unknown key."""
    logger.warning("%s", error)
    return Problem(503, str(error), headers={"Retry-After": "1"})


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _of_temporal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RPCError | TemporalCallError)
    return of_temporal(error).response()


async def _of_keys(request: Request, error: Exception) -> Response:
    assert isinstance(error, EncryptionError)
    return of_keys(error).response()


async def _of_routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    fact = {404: "there is no such path", 405: f"this path does not support {request.method}"}.get(
        error.status_code, error.detail
    )
    message = f"{fact}; /openapi.json describes the API"
    return Problem(error.status_code, message, headers=dict(error.headers or {})).response()


async def _unexpected(request: Request, error: Exception) -> Response:
    return Problem(500, "the gateway has failed; its log has the reason").response()


HANDLERS: dict[Any, Any] = {
    Problem: _problem,
    RPCError: _of_temporal,
    TemporalCallError: _of_temporal,
    EncryptionError: _of_keys,
    HTTPException: _of_routing,
    Exception: _unexpected,
}
"""Handlers by which Starlette turns exceptions into responses."""
