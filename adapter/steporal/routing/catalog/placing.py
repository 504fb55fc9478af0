"""Placing of an app's list in the catalog's shards and as schedules: the activity of the arbiter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import temporalio.client
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import RPCTimeoutOrCancelledError
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from ...activities.reporting import alive
from ...rpc import bounded
from ...values.converter import from_raw, to_raw
from ...wire.names import PLACE_APP
from . import schedules
from .arbiter import Order
from .shard_store import Shards, is_placed, plain_converter, read_part
from .shards import SHARDS, Part, apps_in, check_size, field_of, parts_of, shard_of_app

_FINAL = {
    RPCStatusCode.INVALID_ARGUMENT,
    RPCStatusCode.OUT_OF_RANGE,
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.UNAUTHENTICATED,
    RPCStatusCode.UNIMPLEMENTED,
}
"""Statuses of calls that a retry does not help."""


@activity.defn(name=PLACE_APP)
async def place_app(argument: RawValue) -> RawValue:
    """Place a list in the shards of the catalog, and update its schedules.

    Temporal retries it if Temporal or a worker was not up. Other errors are final: the process that registers reports
    them, and the app's workers register again in a minute.
    """
    order = Order.model_validate(from_raw(argument))
    async with alive():
        try:
            await Placing(activity.client(), order).run()
        except ApplicationError:
            raise
        except Exception as err:
            is_passing = isinstance(err, RPCTimeoutOrCancelledError) or (
                isinstance(err, RPCError) and err.status not in _FINAL
            )
            raise ApplicationError(str(err), type=type(err).__name__, non_retryable=not is_passing) from err
    return to_raw(None)


REGISTRY_ACTIVITIES: list[Callable[..., Any]] = [place_app]


class Placing:
    """Places one list.

    Args:
        temporal: The connection; its data converter encodes what is placed.
        order: The list.
    """

    def __init__(self, temporal: temporalio.client.Client, order: Order) -> None:
        self._temporal = temporal
        self._shards = Shards(temporal)
        self._converter = plain_converter(temporal.data_converter)
        self._order = order

    async def run(self) -> None:
        """Place the list; parts that are up to date are not touched.

        Raises:
            ApplicationError: The list does not fit into a shard; nothing was changed.
            RPCError: Temporal returned an error, or could not be reached; some parts may have been placed.
        """
        app = self._order.app.id
        wanted, home = parts_of(self._order.app), shard_of_app(app)
        of_home = await self._shards.read(home)
        listed = await read_part(self._converter, field_of(of_home, app))
        is_lost = self._order.is_first and field_of(of_home, app) is not None
        thorough = self._order.thorough or is_lost
        numbers = set(range(SHARDS)) if thorough else {home, *wanted, *(listed.shards if listed else ())}
        others = sorted(number for number in numbers if 0 <= number < SHARDS and number != home)
        memos = await bounded(self._shards.read, others)
        changes = {}
        for number, memo in [*zip(others, memos, strict=True), (home, of_home)]:
            changed, field = await self._changed(memo, wanted.get(number))
            if changed:
                changes[number] = field
        if self._order.schedules is not None or thorough:
            await self._apply_schedules(thorough=thorough)
        # The home shard comes last, because it lists the shards that hold parts of the app.
        await bounded(self._place, [change for change in changes.items() if change[0] != home])
        if home in changes:
            await self._place((home, changes[home]))

    async def _changed(self, memo: Mapping[str, Payload], part: Part | None) -> tuple[bool, Payload | None]:
        """Return whether a shard's field must change, and the new field."""
        app = self._order.app.id
        existing = field_of(memo, app)
        if part is None:
            return existing is not None, None
        if await is_placed(self._converter, existing, part):
            return False, existing
        (field,) = await self._converter.encode([to_raw(part.model_dump(mode="json", exclude_defaults=True))])
        check_size(app, [(other, payload) for other, payload in apps_in(memo) if other != app], field)
        return True, field

    async def _place(self, change: tuple[int, Payload | None]) -> None:
        number, field = change
        await self._shards.place(number, self._order.app.id, self._order.generation, field)

    async def _apply_schedules(self, *, thorough: bool) -> None:
        app = self._order.app
        known = {*(self._order.schedules or ()), *app.schedules}
        if thorough:
            known.update(await schedules.existing(self._temporal, app.id))
        await schedules.apply(self._temporal, schedules.starts_of(app), known)
