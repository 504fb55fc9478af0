"""OpenAPI description of the gateway; tests check the gateway against it."""

from __future__ import annotations

from typing import Any

import steporal
from steporal.events import EARLIEST_MS, LATEST_MS, MAX_EVENT_ID_BYTES, MAX_EVENTS, MAX_NAME_LENGTH
from steporal.types import JSON

_Object = dict[str, JSON]


def _ref(name: str) -> _Object:
    return {"$ref": f"#/components/schemas/{name}"}


def _response(description: str, schema: _Object) -> _Object:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(**descriptions: str) -> _Object:
    return {status.removeprefix("s"): _response(text, _ref("Error")) for status, text in descriptions.items()}


def _enveloped(data: _Object) -> _Object:
    return _closed(data=data, metadata=_ref("Metadata"))


def _closed(**properties: _Object) -> _Object:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _body(schema: _Object) -> _Object:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _in_path(name: str, description: str) -> _Object:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "minLength": 1},
    }


_ID_OF_RUN = _in_path(
    "id", "A run id, or Temporal's workflow id of the run, `{app}/{workflow}/{event id}`, with or without URL encoding."
)
_FOR_API: list[_Object] = [{"apiKey": []}]
_OPEN: list[_Object] = []

_LIVE: _Object = {
    "summary": "Check that the process is up.",
    "security": _OPEN,
    "responses": {"200": _response("The process is up.", _closed(status={"const": 200}, message={"type": "string"}))},
}

_SCHEMAS: _Object = {
    "Event": {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_NAME_LENGTH,
                "description": "Must not start with `inngest/` or `steporal/`, contain `*`, or start or end with a "
                "space.",
            },
            "data": {"type": ["object", "null"], "description": "The key `_inngest` in it is dropped."},
            "id": {
                "type": ["string", "null"],
                "maxLength": MAX_EVENT_ID_BYTES,
                "description": "Each workflow starts at most one run per id. A ULID by default.",
            },
            "ts": {
                "anyOf": [
                    {"type": "integer", "minimum": EARLIEST_MS, "maximum": LATEST_MS},
                    {"enum": [0, None]},
                ],
                "description": "Milliseconds since the epoch, 1980 to 2100; 0 is now. A future time delays the runs.",
            },
            "v": {"type": ["string", "null"], "description": "A version of the data, of any form."},
        },
        "description": "Further keys, such as Inngest's `user` and `meta`, are accepted and dropped.",
    },
    "Sent": _closed(
        ids={"type": "array", "items": {"type": "string"}, "description": "The events' ids, in order."},
        status={"const": 200},
    ),
    "NotSent": _closed(
        ids={
            "type": "array",
            "items": {"type": "string"},
            "description": "With 503: the ids of the events; sending them again with these ids starts nothing twice.",
        },
        error={"type": "string"},
        status={"type": "integer"},
    ),
    "Error": _closed(error={"type": "string"}, status={"type": "integer"}),
    "Metadata": _closed(
        fetched_at={"type": "string", "format": "date-time"},
        cached_until={"type": "null"},
    ),
    "Run": _closed(
        run_id={"type": "string"},
        run_started_at={"type": "string", "format": "date-time"},
        function_id={"type": "string", "description": "The workflow's id."},
        event_id={"type": "string", "description": "The id of the event that started it."},
        status={"enum": ["Running", "Completed", "Failed", "Cancelled"]},
        ended_at={"type": ["string", "null"], "format": "date-time"},
        output={"description": "The result; for a run that failed, `{name, message, stack}`."},
        workflow_id={"type": "string", "description": "Temporal's workflow id."},
    ),
}


def _not_sent(**descriptions: str) -> _Object:
    return {status.removeprefix("s"): _response(text, _ref("NotSent")) for status, text in descriptions.items()}


_UNREACHABLE = "Temporal did not answer."
_NO_KEY = "The API key is missing or wrong."
_FOREIGN = "A foreign web page sent the request, and no key is required."

_BODY = {
    "s400": "The body is not valid; the error says where.",
    "s401": _NO_KEY,
    "s403": _FOREIGN,
    "s413": "The body is too large.",
    "s415": "The body is compressed.",
}

_PATHS: _Object = {
    "/e/{key}": {
        "post": {
            "operationId": "sendEvents",
            "summary": "Send events. Each event starts the workflows that have a trigger for it.",
            "description": "All events are checked before any is sent.",
            "security": _OPEN,
            "parameters": [
                _in_path("key", "An event key."),
                {
                    "name": "x-inngest-event-id-seed",
                    "in": "header",
                    "description": "`{millis},{base64 of 10 bytes}`: a retry with the same value starts nothing twice. "
                    "Values of another form are ignored.",
                    "schema": {"type": "string"},
                    "example": "1796068800000,AAAAAAAAAAAAAA==",
                },
                {
                    "name": "x-inngest-env",
                    "in": "header",
                    "description": "Ignored.",
                    "schema": {"type": "string", "pattern": "^[a-z0-9-]+$"},
                },
            ],
            "requestBody": _body(
                {"anyOf": [_ref("Event"), {"type": "array", "items": _ref("Event"), "maxItems": MAX_EVENTS}]}
            ),
            "responses": {
                "200": _response("The events are sent.", _ref("Sent")),
                **_not_sent(
                    s400="An event is not valid; no event was sent.",
                    s401="The event key is wrong.",
                    s403=_FOREIGN,
                    s413="An event, or the body, is too large.",
                    s415="The body is compressed.",
                    s503=f"{_UNREACHABLE} Send the same request again.",
                ),
            },
        }
    },
    "/v1/signals": {
        "post": {
            "operationId": "sendSignal",
            "summary": "Send a signal to the run that waits for it.",
            "security": _FOR_API,
            "requestBody": _body(
                {
                    "type": "object",
                    "required": ["signal"],
                    "properties": {"signal": {"type": "string", "minLength": 1}, "data": {}},
                }
            ),
            "responses": {
                "200": _response("A run has received it.", _enveloped(_closed(run_id={"type": "string"}))),
                **_errors(**_BODY, s404="No run waits for it.", s503=_UNREACHABLE),
            },
        }
    },
    "/v1/events/{id}/runs": {
        "get": {
            "operationId": "runsOfEvent",
            "summary": "List the runs that an event started.",
            "security": _FOR_API,
            "parameters": [_in_path("id", "The event's id.")],
            "responses": {
                "200": _response(
                    "The runs, in the order of their starts.", _enveloped({"type": "array", "items": _ref("Run")})
                ),
                **_errors(s400="The id is not a valid event id.", s401=_NO_KEY, s403=_FOREIGN, s503=_UNREACHABLE),
            },
        }
    },
    "/v1/runs/{id}": {
        "get": {
            "operationId": "getRun",
            "summary": "Return a run.",
            "security": _FOR_API,
            "parameters": [_ID_OF_RUN],
            "responses": {
                "200": _response("The run.", _enveloped(_ref("Run"))),
                **_errors(
                    s400="The id is not a valid run id.",
                    s401=_NO_KEY,
                    s403=_FOREIGN,
                    s404="The run does not exist.",
                    s503=_UNREACHABLE,
                ),
            },
        },
        "delete": {
            "operationId": "cancelRun",
            "summary": "Cancel a run.",
            "description": "The run may still run its last steps.",
            "security": _FOR_API,
            "parameters": [_ID_OF_RUN],
            "responses": {
                "204": {"description": "The cancellation is requested, or the run was cancelled before."},
                **_errors(
                    s400="The id is not a valid run id.",
                    s401=_NO_KEY,
                    s403=_FOREIGN,
                    s404="The run does not exist.",
                    s409="The run has completed or failed.",
                    s503=_UNREACHABLE,
                ),
            },
        },
    },
    "/invoke/{workflow}": {
        "post": {
            "operationId": "startRun",
            "summary": "Start a run of a workflow.",
            "security": _FOR_API,
            "parameters": [_in_path("workflow", "A workflow's id, or `{app}-{workflow}`.")],
            "requestBody": _body(
                {"type": "object", "properties": {"data": {"description": "The run's input; null by default."}}}
            ),
            "responses": {
                "200": _response("The run is started.", _closed(id={"type": "string"}, status={"const": 200})),
                **_errors(
                    **(_BODY | {"s400": "The body or the input is not valid, or several apps have this workflow."}),
                    s404="The workflow does not exist.",
                    s503=_UNREACHABLE,
                ),
            },
        }
    },
    "/health": {"get": _LIVE | {"operationId": "health"}},
    "/live": {"get": _LIVE | {"operationId": "live"}},
    "/ready": {
        "get": {
            "operationId": "ready",
            "summary": "Check that Temporal answers, the catalog can be read, and the process is not stopping.",
            "security": _OPEN,
            "responses": {
                "200": _response(
                    "The process is ready.",
                    _closed(status={"const": 200}, message={"type": "string"}),
                ),
                **_errors(s503=_UNREACHABLE),
            },
        }
    },
    "/openapi.json": {
        "get": {
            "operationId": "describe",
            "summary": "Return this description.",
            "security": _OPEN,
            "responses": {"200": _response("This description.", {"type": "object"})},
        }
    },
}


DESCRIPTION: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Steporal gateway",
        "version": steporal.__version__,
        "description": "Inngest's event API, and a part of its REST API, in front of Temporal.",
    },
    "paths": _PATHS,
    "components": {
        "schemas": _SCHEMAS,
        "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
    },
}
