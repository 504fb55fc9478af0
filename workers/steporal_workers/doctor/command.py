"""``steporal doctor``: runs all checks one after the other, and prints the verdicts as a table or as JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

import steporal
from steporal.operations.doctor.checks import CHECKS, Finding, examine
from steporal.operations.doctor.verdicts import State, bad

from ..connection import Connection
from ..output import console, print_json
from ..problems import Failure
from .gateway import GatewaySettings, gateway_keys

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
    settings = GatewaySettings(
        event_keys=gateway["event_keys"] or (),
        api_keys=gateway["api_keys"] or (),
        insecure_any_key=gateway["insecure_any_key"],
    )
    findings = [finding async for finding in _findings(client, connection, settings, target)]
    if as_json:
        print_json([_json(finding) for finding in findings])
    else:
        console().print(_table(findings))
    return int(any(finding.verdict.state == "bad" for finding in findings))


async def _findings(
    client: steporal.Client, connection: Connection, gateway: GatewaySettings, target: str
) -> AsyncIterator[Finding]:
    """Yield the result of each check; only the first one if the server or the namespace is missing."""
    try:
        temporal = await connection.reach(client.data_converter)
    except Failure as err:
        message, _, remedy = err.message.partition("; ")
        yield Finding("server", bad(message, remedy))
        return
    checks = {**CHECKS, "gateway keys": lambda _: gateway_keys(gateway)}
    async for finding in examine(client, temporal, target=target, checks=checks):
        yield finding


def _json(finding: Finding) -> dict[str, Any]:
    verdict = finding.verdict
    return {
        "check": finding.check,
        "state": verdict.state,
        "said": verdict.message,
        "remedy": verdict.remedy or None,
    }


def _table(findings: Sequence[Finding]) -> Table:
    table = Table("", "check", "found", "remedy")
    for finding in findings:
        verdict = finding.verdict
        colour = _COLOURS[verdict.state]
        table.add_row(f"[{colour}]{verdict.state}[/]", finding.check, escape(verdict.message), escape(verdict.remedy))
    return table
