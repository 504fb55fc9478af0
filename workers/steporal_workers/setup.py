"""``steporal setup``: registers the search attributes in a namespace."""

from __future__ import annotations

import asyncio

import temporalio.client
from rich.markup import escape
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.common import SearchAttributeIndexedValueType
from temporalio.service import RPCError, RPCStatusCode

from steporal.observability.search_attributes import TYPES, registered, type_name

from .output import print_json, say
from .problems import Failure

_NUMBERS = {name: IndexedValueType.ValueType(type.value) for name, type in TYPES.items()}
_REFUSED = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED)
_KNOWN_SECONDS = 30.0


async def run_setup(temporal: temporalio.client.Client, *, as_json: bool) -> None:
    """Register the search attributes that are missing, and print the result.

    Raises:
        Failure: Temporal refuses, as Temporal Cloud does; or an attribute of the same name has another type.
    """
    missing = await _missing(temporal)
    if missing:
        request = AddSearchAttributesRequest(
            namespace=temporal.namespace, search_attributes={name: _NUMBERS[name] for name in missing}
        )
        try:
            await temporal.operator_service.add_search_attributes(request)
        except RPCError as err:
            if err.status in _REFUSED:
                raise Failure(_by_hand(temporal, missing, err)) from None
            raise
        await _until_known(temporal)
    existing = [name for name in TYPES if name not in missing]
    if as_json:
        print_json({"namespace": temporal.namespace, "added": missing, "there": existing})
        return
    for name in TYPES:
        kind = type_name(TYPES[name])
        say(f"  {name} ({kind}) {'[green]registered[/]' if name in missing else 'was registered already'}")
    namespace = escape(repr(temporal.namespace))
    if missing:
        say(f"namespace {namespace} has all search attributes; running processes notice within a minute")
    else:
        say(f"namespace {namespace} had all search attributes; nothing to do")


async def _missing(temporal: temporalio.client.Client) -> list[str]:
    try:
        types = await registered(temporal)
    except RPCError as err:
        if err.status in _REFUSED:
            raise Failure(_by_hand(temporal, list(TYPES), err)) from None
        raise
    for name, wanted in _NUMBERS.items():
        if types.get(name, wanted) != wanted:
            existing = type_name(SearchAttributeIndexedValueType(types[name]))
            raise Failure(
                f"namespace {temporal.namespace!r} has a search attribute {name!r} of type {existing}, but Steporal "
                f"needs {type_name(TYPES[name])}; remove it: temporal operator search-attribute remove --name {name}"
            )
    return [name for name in TYPES if name not in types]


async def _until_known(temporal: temporalio.client.Client) -> None:
    """Wait until the servers that this is connected to know the search attributes; they learn them one by one."""
    async with asyncio.timeout(_KNOWN_SECONDS):
        while await _missing(temporal):  # noqa: ASYNC110  # the server offers no way to wait for them
            await asyncio.sleep(0.1)


def _by_hand(temporal: temporalio.client.Client, missing: list[str], error: RPCError) -> str:
    attributes = " ".join(f'--sa "{name}={type_name(TYPES[name])}"' for name in missing)
    types = ", ".join(f"{name} ({type_name(TYPES[name])})" for name in missing)
    return (
        f"Temporal does not let you register search attributes here ({error.message}, {error.status.name}); on "
        f"Temporal Cloud, run: tcld namespace search-attributes add --namespace {temporal.namespace} {attributes}\n"
        f"or add them in its UI, in the namespace's settings: {types}"
    )
