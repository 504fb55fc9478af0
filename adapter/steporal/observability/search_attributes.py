"""The search attributes by which Temporal finds runs, in namespaces that have them; ``steporal setup`` registers them.

Temporal refuses to start a workflow with an attribute that the namespace does not know. So a run is started with them
only where all are registered, which a process asks once a minute; without them, everything works but such searches.
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
"""What is registered. Their values are searched for, so a change of what they hold is one for those who search."""

NONE = TypedSearchAttributes([])

ASKED_EVERY_SECONDS = 60.0

_ASKED_AGAIN_AFTER_SECONDS = 1.0
_NOT_FOR_US = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED)
_RPC_TIMEOUT = timedelta(seconds=5)

# Temporal's databases take 255 characters of a keyword, and its `limit.searchAttributesSizeOfValue` is 2 KiB of JSON,
# in which a character beyond ASCII can have 12 bytes. A workflow task that sends more fails for ever.
_MAX_LENGTH = 255
_MAX_LENGTH_BEYOND_ASCII = 120
_MAX_LIST_BYTES = 1_500


def type_name(type: SearchAttributeIndexedValueType) -> str:
    """A type as Temporal's commands have it: ``KeywordList``."""
    return "".join(map(str.title, type.name.split("_")))


def of_run(app: str, workflow: str, event_name: str, event_id: str = "") -> TypedSearchAttributes:
    """What a run is started with, in a namespace that has the attributes.

    Args:
        app: The app's id.
        workflow: The workflow's.
        event_name: The name of the event that starts it.
        event_id: That event's id; none if it is not known before the start.
    """
    values = ((APP, app), (WORKFLOW, workflow), (EVENT_NAME, event_name), (EVENT_ID, event_id))
    return TypedSearchAttributes([SearchAttributePair(key, keyword(value)) for key, value in values if value])


def is_indexed(attributes: TypedSearchAttributes) -> bool:
    """Whether a run was started with them."""
    return attributes.get(APP) is not None


def keyword(value: str) -> str:
    """A value as it is found: cut to what Temporal takes."""
    return value[: _MAX_LENGTH if value.isascii() else _MAX_LENGTH_BEYOND_ASCII]


def waiting_for(attributes: TypedSearchAttributes, values: Iterable[str]) -> TypedSearchAttributes:
    """The attributes of a run that waits for something, of those that it has."""
    kept: list[str] = []
    for value in dict.fromkeys(map(keyword, values)):
        if len(json.dumps([*kept, value])) > _MAX_LIST_BYTES:
            break
        kept.append(value)
    others = [pair for pair in attributes if pair.key.name != WAITING_FOR.name]
    return TypedSearchAttributes([*others, *([SearchAttributePair(WAITING_FOR, kept)] if kept else [])])


# --- whether a namespace has them ----------------------------------------------------------------------------------


async def start_indexed(
    temporal: temporalio.client.Client,
    attributes: TypedSearchAttributes,
    start: Callable[[TypedSearchAttributes], Awaitable[T]],
) -> T:
    """Start something with search attributes where the namespace has them, and without where not.

    Args:
        temporal: A connection to the namespace.
        attributes: What it has where it can.
        start: Starts it with what it is given.
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
    """Whether a namespace has all of the attributes, as far as is known."""
    return await _namespaces.setdefault(temporal, _Namespace()).has_all(temporal)


async def registered(temporal: temporalio.client.Client) -> Mapping[str, int]:
    """The types of the attributes that a namespace has, by name, as Temporal's numbers.

    Raises:
        RPCError: Temporal does not say, as it does not everywhere to everybody.
    """
    listed = await temporal.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=temporal.namespace), timeout=_RPC_TIMEOUT
    )
    return {**listed.custom_attributes, **listed.system_attributes}


@dataclass(slots=True)
class _Namespace:
    """What this process knows of a namespace."""

    _has_all: bool = False
    _until: float = 0.0
    _asking: PerLoop[asyncio.Lock] = field(default_factory=lambda: PerLoop(asyncio.Lock))

    async def has_all(self, temporal: temporalio.client.Client) -> bool:
        if time.monotonic() >= self._until:
            async with self._asking.get():
                if time.monotonic() >= self._until:
                    await self._ask(temporal)
        return self._has_all

    async def _ask(self, temporal: temporalio.client.Client) -> None:
        lasts = ASKED_EVERY_SECONDS
        try:
            types = await registered(temporal)
            self._has_all = all(types.get(name) == type for name, type in TYPES.items())
        except RPCError as err:
            self._has_all = False
            if err.status not in _NOT_FOR_US:
                lasts = _ASKED_AGAIN_AFTER_SECONDS
        self._until = time.monotonic() + lasts

    def has_lost_some(self) -> None:
        """They were removed since; or a server does not know yet that they were added."""
        self._has_all = False
        self._until = time.monotonic() + ASKED_EVERY_SECONDS


_namespaces: WeakKeyDictionary[temporalio.client.Client, _Namespace] = WeakKeyDictionary()
