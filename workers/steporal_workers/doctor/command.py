"""``steporal doctor``: runs all checks one after the other, and prints the verdicts as a table or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import temporalio.client
from rich.markup import escape
from rich.table import Table
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeNamespaceResponse
from temporalio.service import RPCError, RPCStatusCode

import steporal
from steporal.errors import UnknownKeyError

from ..connection import Connection
from ..output import console, print_json
from ..problems import Failure
from . import app, server
from .verdicts import Check, State, Subject, Verdict, bad, warning

CHECKS: Mapping[str, Check] = {
    "server": server.server,
    "namespace": server.namespace,
    "permissions": server.permissions,
    "search attributes": server.search_attributes,
    "retention": server.retention,
    "payload limits": server.payload_limits,
    "clock": server.clock,
    "workers": app.workers,
    "backlog": app.backlog,
    "runs": app.stuck_runs,
    "catalog": app.catalog,
    "triggers in force": app.in_force,
    "encryption": app.encryption,
    "schedules": app.schedules,
    "gateway keys": app.gateway_keys,
}

_CALL = timedelta(seconds=10)
_COLOURS: Mapping[State, str] = {"good": "green", "warning": "yellow", "bad": "red"}


async def run_doctor(
    client: steporal.Client, connection: Connection, gateway: Mapping[str, Any], *, target: str, as_json: bool
) -> int:
    """Check an installation, print the verdicts, and return the exit status: 1 if something is bad.

    Args:
        client: The app.
        connection: The connection to Temporal.
        gateway: The gateway's settings.
        target: The client, as the command line names it.
        as_json: Print JSON.
    """
    verdicts = await _examined(client, connection, gateway, target)
    if as_json:
        print_json(
            [
                {"check": name, "state": verdict.state, "said": verdict.message, "remedy": verdict.remedy or None}
                for name, verdict in verdicts.items()
            ]
        )
    else:
        console().print(_table(verdicts))
    return int(any(verdict.state == "bad" for verdict in verdicts.values()))


async def _examined(
    client: steporal.Client, connection: Connection, gateway: Mapping[str, Any], target: str
) -> dict[str, Verdict]:
    """Return the verdict of each check; only the first verdict if the server or the namespace is missing."""
    try:
        temporal = await connection.reach(client.data_converter)
    except Failure as err:
        message, _, remedy = err.message.partition("; ")
        return {"server": bad(message, remedy)}
    try:
        namespace = await _described(temporal)
    except RPCError as err:
        if err.status == RPCStatusCode.NOT_FOUND:
            remedy = "choose one: --namespace NAME or TEMPORAL_NAMESPACE"
            return {"namespace": bad(f"there is no namespace {temporal.namespace!r}", remedy)}
        if err.status != RPCStatusCode.PERMISSION_DENIED:
            return {"namespace": bad(f"Temporal does not describe it: {err.message}", "check the key or certificate")}
        namespace = DescribeNamespaceResponse()  # a key may be allowed to run workflows, but not to describe
    client.temporal = temporal
    subject = Subject(
        target=target,
        client=client,
        temporal=temporal,
        namespace=namespace,
        event_keys=gateway["event_keys"] or (),
        api_keys=gateway["api_keys"] or (),
        insecure_any_key=gateway["insecure_any_key"],
    )
    return {name: await _performed(check, subject) for name, check in CHECKS.items()}


async def _described(temporal: temporalio.client.Client) -> DescribeNamespaceResponse:
    request = DescribeNamespaceRequest(namespace=temporal.namespace)
    return await temporal.workflow_service.describe_namespace(request, timeout=_CALL)


async def _performed(check: Check, subject: Subject) -> Verdict:
    try:
        return await check(subject)
    except UnknownKeyError as err:
        message, _, remedy = str(err).partition("; ")
        return bad(message, remedy)
    except RPCError as err:
        message = f"not checked: {err.message} ({err.status.name})"
        if err.status in (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED):
            return warning(message, "Temporal does not report it here")
        return bad(message, "try again")
    except Exception as err:  # anybody who may write to the namespace may have stored anything: the other checks go on
        message = f"not checked: something in the namespace cannot be read: {type(err).__name__}: {str(err)[:200]}"
        return bad(message, "look for workflows of type `steporal.*` that none of your workers started")


def _table(verdicts: Mapping[str, Verdict]) -> Table:
    table = Table("", "check", "found", "remedy")
    for name, verdict in verdicts.items():
        colour = _COLOURS[verdict.state]
        table.add_row(f"[{colour}]{verdict.state}[/]", name, escape(verdict.message), escape(verdict.remedy))
    return table
