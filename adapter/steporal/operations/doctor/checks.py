"""All checks of an installation, and their verdicts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import temporalio.client
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeNamespaceResponse
from temporalio.service import RPCError, RPCStatusCode

from ...client import Client
from ...errors import UnknownKeyError
from . import app, server
from .verdicts import Check, Subject, Verdict, bad, warning

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
}

_CALL = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one of the checks.

    Attributes:
        check: The name of the check.
        verdict: Its verdict.
    """

    check: str
    verdict: Verdict


async def examine(
    client: Client, temporal: temporalio.client.Client, *, target: str, checks: Mapping[str, Check] = CHECKS
) -> AsyncIterator[Finding]:
    """Check an installation; yield the result of each check, or only one if the namespace cannot be described.

    Args:
        client: The app, with the code that its workers should have.
        temporal: The connection to the namespace.
        target: The client, as the command line names it; remedies name it.
        checks: The checks, by name.
    """
    try:
        namespace = await _described(temporal)
    except RPCError as err:
        if err.status != RPCStatusCode.PERMISSION_DENIED:
            yield Finding("namespace", _not_described(temporal, err))
            return
        namespace = DescribeNamespaceResponse()  # a key may be allowed to run workflows, but not to describe
    client.temporal = temporal
    subject = Subject(target=target, client=client, temporal=temporal, namespace=namespace)
    for name, check in checks.items():
        yield Finding(name, await verdict_of(check, subject))


async def _described(temporal: temporalio.client.Client) -> DescribeNamespaceResponse:
    request = DescribeNamespaceRequest(namespace=temporal.namespace)
    return await temporal.workflow_service.describe_namespace(request, timeout=_CALL)


def _not_described(temporal: temporalio.client.Client, error: RPCError) -> Verdict:
    if error.status == RPCStatusCode.NOT_FOUND:
        remedy = "choose one: --namespace NAME or TEMPORAL_NAMESPACE"
        return bad(f"there is no namespace {temporal.namespace!r}", remedy)
    return bad(f"Temporal does not describe it: {error.message}", "check the key or certificate")


async def verdict_of(check: Check, subject: Subject) -> Verdict:
    """Return the verdict of a check; an error of the check is a verdict, too."""
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
