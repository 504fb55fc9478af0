"""``steporal setup``: registers the search attributes in a namespace, and prints them."""

from __future__ import annotations

import temporalio.client
from rich.markup import escape

from steporal.observability.search_attributes import TYPES, type_name
from steporal.operations.setup import register_search_attributes

from .output import print_json, say


async def run_setup(temporal: temporalio.client.Client, *, as_json: bool) -> None:
    """Register the search attributes that are missing, and print the result."""
    registered = await register_search_attributes(temporal)
    added = registered.added
    if as_json:
        print_json({"namespace": temporal.namespace, "added": list(added), "there": list(registered.existing)})
        return
    for name in TYPES:
        kind = type_name(TYPES[name])
        say(f"  {name} ({kind}) {'[green]registered[/]' if name in added else 'was registered already'}")
    namespace = escape(repr(temporal.namespace))
    if added:
        say(f"namespace {namespace} has all search attributes; running processes notice within a minute")
    else:
        say(f"namespace {namespace} had all search attributes; nothing to do")
