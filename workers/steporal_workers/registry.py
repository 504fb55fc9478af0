"""``steporal sync`` and ``steporal catalog``: register an app in a namespace, and print what is registered."""

from __future__ import annotations

import temporalio.client
from rich.markup import escape

import steporal
from steporal.errors import CatalogFullError, NotInForceError
from steporal.routing.catalog.reading import Catalog

from .output import apps_table, console, print_json, say, schedules_table
from .problems import Failure


async def sync(client: steporal.Client, temporal: temporalio.client.Client, *, take_over: bool, as_json: bool) -> None:
    """Register a client's workflows and triggers without serving them.

    Raises:
        Failure: Another list of the app stays in force, or the catalog is full.
    """
    client.temporal = temporal
    try:
        listed = await client.sync(take_over=take_over)
    except NotInForceError as err:
        raise Failure(f"{err}. To register it anyway: --take-over") from None
    except CatalogFullError as err:
        raise Failure(str(err)) from None
    if as_json:
        print_json(listed.model_dump(mode="json"))
        return
    if not listed.workflows:
        say(f"app [bold]{escape(client.id)}[/] no longer has workflows; it was removed from the catalog")
        return
    console().print(apps_table([listed]))
    if listed.schedules:
        console().print(schedules_table(listed.schedules))
    say(f"app [bold]{escape(client.id)}[/] is registered in namespace {escape(repr(temporal.namespace))}")


async def show_catalog(temporal: temporalio.client.Client, *, as_json: bool) -> None:
    """Print the workflows and schedules that all apps have registered."""
    apps = list((await Catalog(temporal).read_apps()).values())
    if as_json:
        print_json({"apps": [app.model_dump(mode="json") for app in apps]})
        return
    if not apps:
        say(
            f"no app is registered in namespace {escape(repr(temporal.namespace))}; "
            "start a worker, or `steporal sync module:client`"
        )
        return
    console().print(apps_table(apps))
    schedules = [schedule for app in apps for schedule in app.schedules]
    if schedules:
        console().print(schedules_table(schedules))
