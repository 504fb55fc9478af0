"""Registration of the search attributes in a namespace."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import temporalio.client
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.common import SearchAttributeIndexedValueType
from temporalio.service import RPCError, RPCStatusCode

from ..observability.search_attributes import TYPES, registered, type_name
from .errors import OperationError

_NUMBERS = {name: IndexedValueType.ValueType(type.value) for name, type in TYPES.items()}
_REFUSED = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED)
_KNOWN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Registered:
    """Outcome of a registration.

    Attributes:
        added: The names of the search attributes that were registered.
        existing: The names of those that were registered before.
    """

    added: tuple[str, ...]
    existing: tuple[str, ...]


async def register_search_attributes(temporal: temporalio.client.Client) -> Registered:
    """Register Steporal's search attributes that a namespace does not have.

    Raises:
        OperationError: Temporal refuses, as Temporal Cloud does; or an attribute of the same name has another type.
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
                raise OperationError(_by_hand(temporal, missing, err)) from None
            raise
        await _until_known(temporal)
    return Registered(tuple(missing), tuple(name for name in TYPES if name not in missing))


async def _missing(temporal: temporalio.client.Client) -> list[str]:
    try:
        types = await registered(temporal)
    except RPCError as err:
        if err.status in _REFUSED:
            raise OperationError(_by_hand(temporal, list(TYPES), err)) from None
        raise
    for name, wanted in _NUMBERS.items():
        if types.get(name, wanted) != wanted:
            existing = type_name(SearchAttributeIndexedValueType(types[name]))
            raise OperationError(
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
