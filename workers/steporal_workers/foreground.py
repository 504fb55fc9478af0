"""``client.run()``: the work of ``steporal worker``, for a module that is started as a program: ``python shop.py``.

Such a module is named ``__main__``. Other workers find no step functions under that name, and Temporal's sandbox cannot
load the workflows again. So this imports the module once more, by its importable name, and serves that module's
client: workflows, references and histories are the same as with ``steporal worker shop:client``.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

import steporal
from steporal.values.main_module import MAIN, name_of_main

from .connection import Connection
from .leaving import leave
from .loading import clients_of, import_module
from .options import connection_options
from .output import warn
from .problems import Mistake
from .serving import serve
from .settings import settings_of


def run(client: steporal.Client) -> NoReturn:
    """Serve a client's workflows until a signal stops the worker, and end the process."""
    try:
        _run.main([], prog_name="worker", obj=client)
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 1)
    leave(0)


@click.command()
@connection_options
@settings_of("worker")
@click.pass_obj
def _run(client: steporal.Client, /, connection: Connection, **settings: Any) -> None:
    serve(lambda: importable(client), connection, **settings)


def importable(client: steporal.Client) -> steporal.Client:
    """Return the client to serve: the one that other workers get when they import the module that is ``__main__`` here.

    Raises:
        Mistake: Importing the module fails, or defines other workflows.
    """
    own = [workflow for workflow in client.workflows if workflow.handler.__module__ == MAIN]
    name = name_of_main()
    if name is None:
        if own:
            warn(
                f"the workflows of app {client.id!r} are defined in a program that cannot be imported by name: they "
                "run without Temporal's sandbox, and other workers cannot run their steps; move them to a module"
            )
        return client
    if not own and name not in sys.modules:
        return client
    module = import_module(name)
    imported = next((each for each in clients_of(module).values() if each.id == client.id), None)
    if imported is None:
        raise Mistake(
            f"module {name!r} has no client {client.id!r} when it is imported; create the client at the top level of "
            "the module, and not under `if __name__ == '__main__':`"
        )
    defined = {workflow.id for workflow in imported.workflows if workflow.handler.__module__ != MAIN}
    if missing := [workflow.id for workflow in own if workflow.id not in defined]:
        raise Mistake(
            f"module {name!r} does not define workflow {missing[0]!r} when it is imported; define it at the top level "
            "of the module, and not under `if __name__ == '__main__':`"
        )
    return imported
