"""Runs that other programs start with arguments that no starter of ours writes."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from apps import odd
from recording import Workers
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.common import RawValue
from waiting import until_waiting

from steporal.errors import InvalidResultError
from steporal.values.packed import MAX_UNPACKED_BYTES, unpack
from steporal.wire.names import EXACT_METADATA, RECOVER, START_SIGNAL
from steporal.wire.run_result import read_result


def raw(data: bytes, encoding: bytes = b"json/plain", **metadata: bytes) -> RawValue:
    return RawValue(Payload(metadata={"encoding": encoding, **metadata}, data=data))


def deep(levels: int) -> RawValue:
    return raw(b"[" * levels + b"]" * levels)


def origin(**changes: Any) -> dict[str, Any]:
    return {"type": "event", "id": "1", "name": "x", "ts": 1_700_000_000_000, **changes}


def carried(**changes: Any) -> list[Any]:
    return [{}, origin(), {"is_parked": False, "started": 1, "seed": "f", **changes}]


def packed(megabytes: int) -> str:
    packer = zlib.compressobj(9)
    parts = [packer.compress(b"{"), *(packer.compress(b" " * 2**20) for _ in range(megabytes)), packer.compress(b"}")]
    return base64.b64encode(b"".join([*parts, packer.flush()])).decode()


STARTS: dict[str, list[Any]] = {
    "no arguments": [],
    "ten arguments": [1] * 10,
    "ten that are not JSON": [raw(b"{")] * 10,
    "text": ["x"],
    "not JSON": [raw(b"{")],
    "not UTF-8": [raw(b'"\xff"')],
    "no data": [raw(b"")],
    "NaN": [raw(b"NaN")],
    "too large for a float": [raw(b"1e999")],
    "5,000 digits": [raw(b"9" * 5_000)],
    "nested 600 deep": [deep(600)],
    "nested 900 deep": [deep(900)],
    "nested 100,000 deep": [deep(100_000)],
    "half of a surrogate pair": [raw(b'"\\ud800"')],
    "bytes": [raw(b"x", b"binary/plain")],
    "an unknown encoding": [raw(b"x", b"what/ever")],
    "no encoding": [RawValue(Payload(data=b"x"))],
    "a message of an unknown type": [raw(b"{}", b"json/protobuf", messageType=b"no.such.Type")],
    "a class that is not the app's": [{"$": "model", "type": "os:system", "value": 1}],
    "an exact input of no class": [{}, origin(exact={"$": "model", "type": "os:system", "value": 1})],
    "an exact input of odd tags": [{}, origin(exact={"$": "dict", "value": 5})],
    "an origin that is text": [{}, "x"],
    "an origin that is not JSON": [{}, raw(b"{")],
    "an origin of lists": [{}, origin(type=[], id=[1], name={}, v=[1], cron=[5], listened="no")],
    "a time of 31 digits": [{}, origin(ts=10**30)],
    "a time before the epoch": [{}, origin(ts=-(10**15))],
    "a time in the year 9998": [{}, origin(ts=253_370_764_800_000)],
    "search attributes that the namespace does not have": [{}, origin(indexed=True)],
    "those and an id of 5,000 characters": [{}, origin(indexed=True, id="x" * 5_000)],
    "a state with search attributes": carried(is_indexed=True),
    "an id of 100,000 characters": [{}, origin(id="x" * 100_000)],
    "a state that is a number": [{}, origin(), 5],
    "an empty state": [{}, origin(), {}],
    "a state that is not JSON": [{}, origin(), raw(b"{")],
    "a state that is nested too deep": [{}, origin(), deep(100_000)],
    "a state of odd results": carried(memo={"echo": 5}),
    "a state of odd entries": carried(past=[["step", "echo", "now"]]),
    "a state with an odd time": carried(began="yesterday"),
    "a state that began in 10^30": carried(started=10**30),
    "a state that reports to nobody": carried(reports_to=[{}, {"workflow_id": "x"}]),
    "a state that reports to a run without an id": carried(reports_to=[{"workflow_id": "", "run_id": ""}]),
    "a state that reports to a long id": carried(reports_to=[{"workflow_id": "x" * 5_000, "run_id": "y"}]),
    "a rerun of thousands": carried(reruns=[["x" * 50] * 3] * 3_000),
    "a state that is no archive": [{}, origin(), {"zlib": "x"}],
    "a state that is a bomb": [{}, origin(), {"zlib": packed(40)}],
}


OF_SINKS = (
    "no arguments",
    "ten that are not JSON",
    "not JSON",
    "nested 900 deep",
    "an origin that is not JSON",
    "a time of 31 digits",
    "a state that is not JSON",
)
"""Those that a sink reads otherwise than a workflow."""


@pytest.mark.parametrize(
    ("kind", "starts"),
    [
        (odd.echo.id, [*STARTS][::2]),
        (odd.echo.id, [*STARTS][1::2]),
        (odd.counted.id, [*STARTS][::5]),
        (odd.sink.id, OF_SINKS),
    ],
)
async def test_odd_arguments_of_a_start_end_the_run_and_nothing_else(
    workers: Workers, kind: str, starts: Sequence[str]
) -> None:
    async with workers(odd.client), asyncio.timeout(100):

        async def start(what: str) -> None:
            id, queue = f"{kind}/{what}", odd.client.task_queue
            handle = await workers.temporal.start_workflow(kind, args=STARTS[what], id=id, task_queue=queue)
            await ended(handle)
            assert not await failed_tasks(handle), what

        await asyncio.gather(*map(start, starts))
        assert await (await odd.echo.start("hello")).result() == "hello", "the worker goes on"


async def test_a_sink_is_told_again_of_its_event_in_any_form(workers: Workers) -> None:
    async with workers(odd.client), asyncio.timeout(100):
        handle = await workers.temporal.start_workflow(
            odd.sink.id,
            args=[{}, origin(ts=4_000_000_000_000)],
            id="odd-sink/signals",
            task_queue=odd.client.task_queue,
        )
        for messages in ([], [1], [raw(b"{")], [deep(900)] * 3):
            await handle.signal(START_SIGNAL, args=messages)
        await handle.cancel()
        await ended(handle)
        assert not await failed_tasks(handle)


async def ended(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait for the end of a run, whatever it is."""
    with suppress(WorkflowFailureError):
        await handle.result()


async def failed_tasks(handle: WorkflowHandle[Any, Any]) -> list[Any]:
    """The workflow tasks that failed; not those that Temporal repeats as a signal came meanwhile."""
    events = (await handle.fetch_history()).events
    failed = [each for each in events if each.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED]
    came = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND
    return [each for each in failed if each.workflow_task_failed_event_attributes.cause != came]


async def test_a_signal_with_a_bomb_hurts_no_run(workers: Workers) -> None:
    async with workers(odd.client), asyncio.timeout(100):
        run = await odd.waits.start({"key": "x"})
        handle = workers.temporal.get_workflow_handle(run.workflow_id)
        await handle.signal(RECOVER, {"carried": {"zlib": packed(40)}, "signals": 0})
        for message in (raw(b"{"), deep(900), raw(b'"\\ud800"'), raw(b"NaN")):
            await handle.signal(RECOVER, message)
        await until_waiting(run, 1)
        await odd.client.send_event({"name": "odd.done", "data": {"key": "x"}})
        assert await run.result() == {"key": "x"}
        assert not await failed_tasks(handle)


def test_what_is_unpacked_has_a_bound() -> None:
    assert unpack(zlib.compress(b"x" * 100), 100) == b"x" * 100
    for data in (zlib.compress(b"x" * 101), zlib.compress(b"x")[:-1], b"", b"no archive"):
        try:
            unpack(data, 100)
        except ValueError:
            continue
        raise AssertionError(data)


def test_a_result_with_a_bomb_is_an_error() -> None:
    bomb = base64.b64decode(packed(MAX_UNPACKED_BYTES // 2**20 + 1))
    payload = Payload(metadata={"encoding": b"json/plain", EXACT_METADATA: bomb}, data=json.dumps(1).encode())
    try:
        read_result(RawValue(payload))
    except InvalidResultError as err:
        assert "exact value" in str(err)
    else:
        raise AssertionError("it was unpacked")
