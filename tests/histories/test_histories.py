"""What every version has recorded replays with this code, to the end that it had."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import opentelemetry.trace
import pytest
import temporalio.activity
from recording import REPLAYS, TOO_SLOW
from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory
from temporalio.common import RawValue
from temporalio.contrib.opentelemetry import OpenTelemetryPlugin, create_tracer_provider
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ExecuteWorkflowInput,
    Interceptor,
    Plugin,
    Replayer,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

import steporal
from steporal.activities.executions import Executions
from steporal.activities.threads import StepThreads
from steporal.context import InputType
from steporal.outbound.delivery import delivery_class
from steporal.routing import mailbox
from steporal.routing.catalog import shards
from steporal.routing.catalog.placing import REGISTRY_ACTIVITIES
from steporal.routing.mailbox import End
from steporal.routing.topics import directory, lanes, topic
from steporal.routing.topics.delivery import SYSTEM_ACTIVITIES
from steporal.runtime import attempt, continuing
from steporal.runtime.compiled import workflow_class
from steporal.runtime.system_events import Ending
from steporal.wire import limits, packed_size
from steporal.wire.names import MAILBOX, RECOVER, SEND_EVENT
from steporal.wire.waits import Kind
from steporal.worker.activities import Activities
from steporal.worker.serving import SYSTEM_WORKFLOWS

from . import app
from .files import FOLDER, SUFFIX, read, recorded

_ENDED = "tests.run_ended"
_CONTINUED, _CANCELLED = "continued as new", "cancelled"

FILES = recorded()
app.define_sinks("http://127.0.0.1:9/hook")


# --- replaying -----------------------------------------------------------------------------------------------------


class Ends(Interceptor):
    """How the runs end that are replayed: Temporal does not compare what the last workflow task of a history asks for.

    Attributes:
        found: For each run that ends, what it returns or the type of what it fails with.
    """

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        """See base class."""
        input.unsafe_extern_functions[_ENDED] = self.found.__setitem__
        return _WatchedEnd


class _WatchedEnd(WorkflowInboundInterceptor):
    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        ended = workflow.extern_functions()[_ENDED]
        try:
            result = await super().execute_workflow(input)
        except ApplicationError as err:
            ended(workflow.info().run_id, err.type)
            raise
        except workflow.ContinueAsNewError:
            ended(workflow.info().run_id, _CONTINUED)
            raise
        except asyncio.CancelledError:
            ended(workflow.info().run_id, _CANCELLED)
            raise
        ended(workflow.info().run_id, _result([result.payload] if isinstance(result, RawValue) else []))
        return result


def _result(payloads: Iterable[Payload]) -> list[Any]:
    return [json.loads(payload.data) for payload in payloads if payload.data]


def _recorded_end(history: WorkflowHistory) -> Any:
    last = history.events[-1]
    if last.HasField("workflow_execution_completed_event_attributes"):
        return _result(last.workflow_execution_completed_event_attributes.result.payloads)
    if last.HasField("workflow_execution_failed_event_attributes"):
        return last.workflow_execution_failed_event_attributes.failure.application_failure_info.type
    if last.HasField("workflow_execution_continued_as_new_event_attributes"):
        return _CONTINUED
    if last.HasField("workflow_execution_canceled_event_attributes"):
        return _CANCELLED
    return None


async def misfits(histories: Mapping[str, WorkflowHistory], *plugins: Plugin) -> dict[str, str]:
    """What does not fit the code, by the names of the histories."""
    found = await _all_misfits(histories, plugins)
    for _ in range(REPLAYS - 1):
        slow = {name: histories[name] for name, why in found.items() if TOO_SLOW in why}
        if not slow:
            break
        found = {name: why for name, why in found.items() if name not in slow}
        found |= await _all_misfits(slow, plugins)
    return found


async def _all_misfits(histories: Mapping[str, WorkflowHistory], plugins: Sequence[Plugin]) -> dict[str, str]:
    found: dict[str, str] = {}
    for client in app.APPS:
        mine = {name: history for name, history in histories.items() if _app(history) == client.id}
        found |= await _misfits(client, mine, plugins)
    return found


async def _misfits(
    client: steporal.Client, histories: Mapping[str, WorkflowHistory], plugins: Sequence[Plugin]
) -> dict[str, str]:
    ends, found = Ends(), {}
    names = {history.run_id: name for name, history in histories.items()}

    async def given() -> AsyncIterator[WorkflowHistory]:
        for history in histories.values():
            yield history

    replayer = Replayer(workflows=[], plugins=[*plugins, client.plugin()], interceptors=[ends])
    async with replayer.workflow_replay_iterator(given()) as results:
        async for result in results:
            run_id, expected = result.history.run_id, _recorded_end(result.history)
            if result.replay_failure is not None:
                found[names[run_id]] = str(result.replay_failure)
            elif expected is not None and ends.found.get(run_id) != expected:
                found[names[run_id]] = f"ends with {ends.found.get(run_id)!r}, where it was {expected!r}"
    return found


def _app(history: WorkflowHistory) -> str:
    """The app whose code a history is replayed with; any has the system's workflows."""
    queue = history.events[0].workflow_execution_started_event_attributes.task_queue.name
    return queue if queue in {client.task_queue for client in app.APPS} else app.shop.id


@pytest.fixture(scope="module")
def histories() -> dict[str, WorkflowHistory]:
    """All recordings, by version and name."""
    return {_name(file): read(file) for file in FILES}


@pytest.fixture(scope="module")
async def found(histories: dict[str, WorkflowHistory]) -> dict[str, str]:
    """What does not fit."""
    return await misfits(histories)


def _name(file: Path) -> str:
    return str(file.relative_to(FOLDER)).removesuffix(SUFFIX)


def one_of(histories: Mapping[str, WorkflowHistory], name: str) -> tuple[str, WorkflowHistory]:
    """A recording, of any version that has it."""
    return next(item for item in histories.items() if item[0].endswith(f"/{name}"))


@pytest.mark.parametrize("name", [_name(file) for file in FILES])
def test_a_recorded_history_replays(name: str, found: dict[str, str]) -> None:
    assert name not in found, f"runs that are live would be stuck, as this one is: {found[name]}"


async def test_all_of_them_replay_where_traces_are_on(histories: dict[str, WorkflowHistory]) -> None:
    with patch.object(opentelemetry.trace, "_TRACER_PROVIDER", create_tracer_provider(shutdown_on_exit=False)):
        assert await misfits(histories, OpenTelemetryPlugin()) == {}


# --- that it would be found ----------------------------------------------------------------------------------------


def another_activity(events: list[HistoryEvent]) -> None:
    event = next(event for event in events if event.HasField("activity_task_scheduled_event_attributes"))
    event.activity_task_scheduled_event_attributes.activity_type.name = "steporal.run"


def another_step(events: list[HistoryEvent]) -> None:
    event = next(event for event in events if event.HasField("activity_task_scheduled_event_attributes"))
    event.activity_task_scheduled_event_attributes.activity_id = "another step"


def another_result(events: list[HistoryEvent]) -> None:
    (payload,) = events[-1].workflow_execution_completed_event_attributes.result.payloads
    payload.data = b'"another"'


def nothing_done(events: list[HistoryEvent]) -> None:
    """The run ends at its first workflow task."""
    del events[4:-1]
    events[-1].event_id = 5


@pytest.mark.parametrize("alter", [another_activity, another_step, another_result, nothing_done])
async def test_a_history_that_does_not_fit_is_found(
    histories: dict[str, WorkflowHistory], alter: Callable[[list[HistoryEvent]], None]
) -> None:
    name, history = one_of(histories, "process-order")
    events = [HistoryEvent.FromString(event.SerializeToString()) for event in history.events]
    alter(events)
    assert name in await misfits({name: WorkflowHistory(history.workflow_id, events)})


@pytest.mark.parametrize(
    ("name", "module", "constant", "value"),
    [
        ("process-order", attempt, "RUN_STEP", "steporal.run"),
        ("steporal.catalog.1", shards, "_UPDATES_PER_EXECUTION", 10),
    ],
)
async def test_code_that_does_not_fit_is_found(
    histories: dict[str, WorkflowHistory], name: str, module: Any, constant: str, value: object
) -> None:
    name, history = one_of(histories, name)
    with patch.object(module, constant, value):
        assert name in await misfits({name: history})


# --- that all is recorded ------------------------------------------------------------------------------------------

Named = tuple[str, str]
"""A kind of thing, and the name of one."""


def defined() -> set[Named]:
    """What the package has names for in histories."""
    sinks = list(app.shop.sinks.values())
    activities = [
        *Activities(app.shop.app, app.shop.sending, StepThreads(), Executions(), slots=100).all(),
        *SYSTEM_ACTIVITIES,
        *REGISTRY_ACTIVITIES,
    ]
    found = {("activity", str(temporalio.activity._Definition.must_from_callable(each).name)) for each in activities}
    found |= {("workflow", each.id) for client in app.APPS for each in [*client.workflows, *client.sinks.values()]}
    for cls in SYSTEM_WORKFLOWS:
        found |= _handlers(cls, str(workflow._Definition.must_from_class(cls).name))
    found |= _handlers(workflow_class(app.process_order), "a run") | _handlers(delivery_class(sinks[0]), "a sink")
    for kind, literal in {"start": InputType, "wait": Kind, "end of a mailbox": End, "told": Ending}.items():
        found |= {(kind, name) for name in get_args(literal)}
    found |= {("search attributes", "of a parked run"), ("search attributes", "of a schedule's run")}
    found.add(("start", "with steps of another run"))
    return found


def _handlers(cls: type, of: str) -> set[Named]:
    definition = workflow._Definition.must_from_class(cls)
    signals, updates = definition.signals, definition.updates
    return {(f"signal of {of}", str(name)) for name in signals} | {(f"update of {of}", str(name)) for name in updates}


def occurring(history: WorkflowHistory) -> Iterator[Named]:
    """What occurs in a history."""
    started = history.events[0].workflow_execution_started_event_attributes
    kind = started.workflow_type.name
    yield "workflow", kind
    if kind in app.shop.sinks:
        kind = "a sink"
    elif not kind.startswith("steporal."):
        kind = "a run"
        yield from _in_arguments(_result(started.input.payloads))
    for event in history.events:
        yield from _in_event(event, kind)


def _in_arguments(arguments: list[Any]) -> Iterator[Named]:
    _, added, carried, *_ = [*arguments, {}, {}]
    if "type" in added:
        yield "start", added["type"]
    if carried.get("is_parked"):
        yield from _in_carried(carried)
    if added.get("indexed") or carried.get("is_indexed"):
        yield "search attributes", "of a parked run" if carried else "of a schedule's run"
    if carried and not carried["seed"]:
        yield "start", "with steps of another run"


def _in_carried(carried: Any) -> Iterator[Named]:
    yield from (("wait", waiting["kind"]) for _, waiting in carried.get("waits", {}).values())


def _in_event(event: HistoryEvent, kind: str) -> Iterator[Named]:
    if event.HasField("activity_task_scheduled_event_attributes"):
        scheduled = event.activity_task_scheduled_event_attributes
        yield "activity", scheduled.activity_type.name
        if scheduled.activity_type.name == SEND_EVENT:
            (argument,) = _result(scheduled.input.payloads)
            yield from (("told", sent["name"].removeprefix("inngest/function.")) for sent in argument["events"])
    elif event.HasField("marker_recorded_event_attributes"):
        (local,) = _result(event.marker_recorded_event_attributes.details["data"].payloads)
        yield "activity", local["activity_type"]
    elif event.HasField("workflow_execution_signaled_event_attributes"):
        signaled = event.workflow_execution_signaled_event_attributes
        yield f"signal of {kind}", signaled.signal_name
        if signaled.signal_name == RECOVER:
            yield from _in_carried(_result(signaled.input.payloads)[0]["carried"])
    elif event.HasField("workflow_execution_update_accepted_event_attributes"):
        asked = event.workflow_execution_update_accepted_event_attributes.accepted_request
        yield f"update of {kind}", asked.input.name
    elif event.HasField("workflow_execution_completed_event_attributes") and kind == MAILBOX:
        (ended,) = _result(event.workflow_execution_completed_event_attributes.result.payloads)
        yield "end of a mailbox", ended["why"]


def test_all_that_has_a_name_in_histories_is_recorded(histories: dict[str, WorkflowHistory]) -> None:
    recorded = {named for history in histories.values() for named in occurring(history)}
    missing = sorted(f"{kind} {name!r}" for kind, name in defined() - recorded)
    assert not missing, (
        f"no recorded history has: {', '.join(missing)}; add a run of it to tests/histories/app.py and scenes.py, "
        "then `make histories`"
    )


@pytest.mark.parametrize(
    ("module", "constants"),
    [
        (topic, {"_SIGNALS_PER_EXECUTION": 4_000, "_UNITS_PER_TASK": 100_000, "_UNITS_OF_AN_ITEM": 50}),
        (topic, {"_LANES": 4, "_WAITS_PER_PART": 10_000, "_MAX_WAITS_BYTES": 6 * 1024 * 1024}),
        (lanes, {"_DELIVERIES_PER_ACTIVITY": 200, "_BYTES_PER_ACTIVITY": 512 * 1024}),
        (directory, {"_LOOKS_KEPT": 1_440, "_LOOKS_LEAVING": 48, "_LOOKS_UNLISTED": 1, "_TAKEN_PER_EXECUTION": 100}),
        (mailbox, {"_TAKES_PER_MAILBOX": 500}),
        (continuing, {"HARD_LENGTH": 20_000, "HARD_BYTES": 20 * 1024 * 1024}),
        (limits, {"BATCH_BYTES": 1024 * 1024}),
        (packed_size, {"SURELY_FITS_BYTES": 1_511_424}),
    ],
)
def test_a_number_stays_that_only_long_histories_depend_on(module: Any, constants: dict[str, int]) -> None:
    """Those are too large to be recorded."""
    now = {name: getattr(module, name) for name in constants}
    assert now == constants, "live runs replay with the old number: another one needs workflow.patched"


def test_the_recordings_do_not_tell_whose_machine_it_was(histories: dict[str, WorkflowHistory]) -> None:
    for name, history in histories.items():
        assert not re.search(r'"identity": "\d+@', history.to_json()), name


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.removesuffix(SUFFIX))
def test_no_payload_names_a_module_of_ours_but_the_package(file: Path) -> None:
    """Modules may be split and renamed, although live runs have values of public classes."""
    found = {name for event in read(file).events for name in OUR_CLASS.findall(event.SerializeToString())}
    assert all(name.startswith(b"steporal:") for name in found)


OUR_CLASS = re.compile(rb"steporal\w*(?:\.\w+)*:[A-Z]\w*")
