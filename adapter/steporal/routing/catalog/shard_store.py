"""Shards of a namespace's catalog, as one process reads and writes them."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import Mapping, Sequence
from datetime import timedelta

import temporalio.client
from temporalio.api.common.v1 import Payload
from temporalio.client import RPCTimeoutOrCancelledError, WithStartWorkflowOperation, WorkflowUpdateFailedError
from temporalio.common import RawValue, WorkflowIDConflictPolicy
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from ...errors import EncryptionError
from ...rpc import is_missing
from ...values.converter import from_raw, to_raw
from ...values.encrypted import is_current
from ...wire.names import CATALOG_FULL, PLACE, SHARD, SHARDS_TASK_QUEUE
from ..messages import TASK_TIMEOUT
from .shards import SHARDS, Part, ShardWorkflow, shard_id

_UPDATE_TIMEOUT = timedelta(seconds=30)


class Shards:
    """Shards of a namespace, read and written without a data converter."""

    def __init__(self, temporal: temporalio.client.Client) -> None:
        self._temporal = without_converter(temporal)

    async def read(self, number: int) -> Mapping[str, Payload]:
        """Return the memo of a shard; empty if nothing was ever placed in it."""
        try:
            described = await self._temporal.get_workflow_handle(shard_id(number)).describe()
        except RPCError as err:
            if is_missing(err):
                return {}
            raise
        if described.close_time is not None:  # it was terminated; apps register again in a new one
            return {}
        return described.raw_description.workflow_execution_info.memo.fields

    async def place(self, number: int, app: str, generation: int, field: Payload | None) -> None:
        """Replace or remove an app's field. This needs a worker of any app.

        Raises:
            ApplicationError: The shard is full.
            RPCError: Temporal returned an error, or could not be reached.
        """
        text = None if field is None else base64.b64encode(field.SerializeToString()).decode()
        start: WithStartWorkflowOperation[ShardWorkflow, None] = WithStartWorkflowOperation(
            SHARD,
            id=shard_id(number),
            task_queue=SHARDS_TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            task_timeout=TASK_TIMEOUT,
            static_summary=f"shard {number} of {SHARDS} of the catalog: which workflows start on which event",
        )
        try:
            await self._temporal.execute_update_with_start_workflow(
                PLACE,
                to_raw({"app": app, "generation": generation, "field": text}),
                start_workflow_operation=start,
                rpc_timeout=_UPDATE_TIMEOUT,
            )
        except WorkflowUpdateFailedError as err:
            if isinstance(err.cause, ApplicationError) and err.cause.type == CATALOG_FULL:
                raise ApplicationError(err.cause.message, type=CATALOG_FULL, non_retryable=True) from None
            raise
        except (RPCError, RPCTimeoutOrCancelledError):
            # The start operation also keeps the error, and asyncio would log it if nothing retrieved it.
            await asyncio.gather(start.workflow_handle(), return_exceptions=True)
            raise


def without_converter(temporal: temporalio.client.Client) -> temporalio.client.Client:
    """Return a client with the same connection and namespace that does not convert payloads."""
    return temporalio.client.Client(temporal.service_client, namespace=temporal.namespace, data_converter=_Unchanged())


class _Unchanged(DataConverter):
    """Leaves payloads unchanged, even those that claim to be in external storage.

    The SDK fails the workflow task if a worker without external storage receives such a payload. Shards never store
    anything there, but anybody can send such a payload, and could block the shard as long as it is retried.
    """

    async def _decode_reference_payload_sequence(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)

    async def _external_retrieve_payload_sequence(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)


def plain_converter(converter: DataConverter) -> DataConverter:
    """Return a data converter with the same encryption, but without external storage."""
    return dataclasses.replace(converter, external_storage=None)


async def read_part(converter: DataConverter, field: Payload | None) -> Part | None:
    """Return an app's part of a shard; None if it does not exist or cannot be read."""
    if field is None:
        return None
    try:
        (raw,) = await converter.decode([field], [RawValue])
        return Part.model_validate(from_raw(raw))
    except (EncryptionError, ValueError, KeyError, RuntimeError):
        return None


async def is_placed(converter: DataConverter, field: Payload | None, part: Part) -> bool:
    """Return whether a field has the form that it would have if the part were placed now."""
    if field is None or not is_current(converter, field):
        return False
    return await read_part(converter, field) == part
