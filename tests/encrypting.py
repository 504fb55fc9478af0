"""Connections that encrypt, and what Temporal has of values when all is said and done."""

from __future__ import annotations

import temporalio.client

from steporal import encryption
from steporal.encryption import Keys


def with_keys(
    temporal: temporalio.client.Client, *keys: str, decrypt: tuple[str, ...] = ()
) -> temporalio.client.Client:
    """A client of the same connection with these keys; without any, it encrypts nothing."""
    converter = encryption.data_converter(Keys.of(keys, decrypt))
    return temporalio.client.Client(**{**temporal.config(), "data_converter": converter})


async def stored(plain: temporalio.client.Client) -> bytes:
    """All that Temporal has in a namespace: of each execution its history and description; and of each schedule."""
    found = []
    async for execution in plain.list_workflows():
        handle = plain.get_workflow_handle(execution.id, run_id=execution.run_id)
        found += [event.SerializeToString() async for event in handle.fetch_history_events()]
        found.append((await handle.describe()).raw_description.SerializeToString())
    async for schedule in await plain.list_schedules():
        described = await plain.get_schedule_handle(schedule.id).describe()
        found.append(described.raw_description.SerializeToString())
    return b"\n".join(found)
