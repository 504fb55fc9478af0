"""Search attributes of runs, in namespaces that have them; ``steporal setup`` registers them.

Temporal refuses to start a workflow with an attribute that the namespace does not have. So a run is started with the
attributes only if all are registered, which a process checks once a minute. Without them, only these searches do not
work.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar
from weakref import WeakKeyDictionary

import temporalio.client
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.common import (
    SearchAttributeIndexedValueType,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
)
from temporalio.service import RPCError, RPCStatusCode

from ..loops import PerLoop

T = TypeVar("T")

APP = SearchAttributeKey.for_keyword("SteporalApp")
WORKFLOW = SearchAttributeKey.for_keyword("SteporalWorkflow")
EVENT_ID = SearchAttributeKey.for_keyword("SteporalEventId")
EVENT_NAME = SearchAttributeKey.for_keyword("SteporalEventName")
WAITING_FOR = SearchAttributeKey.for_keyword_list("SteporalWaitingFor")

TYPES = {key.name: key.indexed_value_type for key in (APP, WORKFLOW, EVENT_ID, EVENT_NAME, WAITING_FOR)}
"""Attributes to register. Users search for their values, so a change of their contents affects users."""

NONE = TypedSearchAttributes([])

CHECK_SECONDS = 60.0

_RETRY_SECONDS = 1.0
_NOT_FOR_US = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED)
_RPC_TIMEOUT = timedelta(seconds=5)

# Temporal's databases store 255 characters of a keyword. Temporal's `limit.searchAttributesSizeOfValue` is 2 KiB of
# JSON, in which a character beyond ASCII can take 12 bytes. A workflow task that sends more fails for ever.
_MAX_LENGTH = 255
_MAX_LENGTH_BEYOND_ASCII = 120
_MAX_LIST_BYTES = 1_500


def type_name(type: SearchAttributeIndexedValueType) -> str:
    """Return a type's name as Temporal's commands spell it: ``KeywordList``."""
    return "".join(map(str.title, type.name.split("_")))


def of_run(app: str, workflow: str, event_name: str, event_id: str = "") -> TypedSearchAttributes:
    """Return the search attributes for starting a run, in a namespace that has them.

    Args:
        app: The app's id.
        workflow: The workflow's id.
        event_name: The name of the event that starts the run.
        event_id: The id of that event; empty if it is not known before the start.
    """
    values = ((APP, app), (WORKFLOW, workflow), (EVENT_NAME, event_name), (EVENT_ID, event_id))
    return TypedSearchAttributes([SearchAttributePair(key, keyword(value)) for key, value in values if value])


def is_indexed(attributes: TypedSearchAttributes) -> bool:
    """Return whether a run was started with the attributes."""
    return attributes.get(APP) is not None


def keyword(value: str) -> str:
    """Return a value in its searchable form: cut to the length that Temporal stores."""
    return value[: _MAX_LENGTH if value.isascii() else _MAX_LENGTH_BEYOND_ASCII]


def waiting_for(attributes: TypedSearchAttributes, values: Iterable[str]) -> TypedSearchAttributes:
    """Return a run's attributes, with the waits in them replaced."""
    kept: list[str] = []
    for value in dict.fromkeys(map(keyword, values)):
        if len(json.dumps([*kept, value])) > _MAX_LIST_BYTES:
            break
        kept.append(value)
    others = [pair for pair in attributes if pair.key.name != WAITING_FOR.name]
    return TypedSearchAttributes([*others, *([SearchAttributePair(WAITING_FOR, kept)] if kept else [])])


# --- attributes of a namespace -------------------------------------------------------------------------------------


async def start_indexed(
    temporal: temporalio.client.Client,
    attributes: TypedSearchAttributes,
    start: Callable[[TypedSearchAttributes], Awaitable[T]],
) -> T:
    """Start something with search attributes if the namespace has them, and without them otherwise.

    Args:
        temporal: A connection to the namespace.
        attributes: The search attributes to set if possible.
        start: Starts it with the attributes passed.
    """
    if not await has_all(temporal):
        return await start(NONE)
    try:
        return await start(attributes)
    except RPCError as err:
        if err.status != RPCStatusCode.INVALID_ARGUMENT or "search attribute" not in err.message.lower():
            raise
        _namespaces[temporal].has_lost_some()
    return await start(NONE)


async def has_all(temporal: temporalio.client.Client) -> bool:
    """Return whether a namespace has all of the attributes, as far as this process knows."""
    return await _namespaces.setdefault(temporal, _Namespace()).has_all(temporal)


async def registered(temporal: temporalio.client.Client) -> Mapping[str, int]:
    """Return the types of the attributes that a namespace has, by name, as Temporal's numbers.

    Raises:
        RPCError: Temporal does not return them, as not every server does, or not to every client.
    """
    listed = await temporal.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=temporal.namespace), timeout=_RPC_TIMEOUT
    )
    return {**listed.custom_attributes, **listed.system_attributes}


@dataclass(slots=True)
class _Namespace:
    """Knowledge of this process about a namespace."""

    _has_all: bool = False
    _until: float = 0.0
    _lock: PerLoop[asyncio.Lock] = field(default_factory=lambda: PerLoop(asyncio.Lock))

    async def has_all(self, temporal: temporalio.client.Client) -> bool:
        if time.monotonic() >= self._until:
            async with self._lock.get():
                if time.monotonic() >= self._until:
                    await self._check(temporal)
        return self._has_all

    async def _check(self, temporal: temporalio.client.Client) -> None:
        valid_seconds = CHECK_SECONDS
        try:
            types = await registered(temporal)
            self._has_all = all(types.get(name) == type for name, type in TYPES.items())
        except RPCError as err:
            self._has_all = False
            if err.status not in _NOT_FOR_US:
                valid_seconds = _RETRY_SECONDS
        self._until = time.monotonic() + valid_seconds

    def has_lost_some(self) -> None:
        """Note that attributes were removed since, or that a server does not know yet that they were added."""
        self._has_all = False
        self._until = time.monotonic() + CHECK_SECONDS


_namespaces: WeakKeyDictionary[temporalio.client.Client, _Namespace] = WeakKeyDictionary()
