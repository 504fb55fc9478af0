"""Rerun: the work of a run again, in a new run, from its beginning or from one of its steps."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from temporalio.client import Client
from temporalio.common import RawValue

from ..client import Client as SteporalClient
from ..events import new_ulid
from ..history.story import Reader, Story
from ..observability.search_attributes import APP
from ..routing.catalog.reading import Catalog
from ..runtime.body import seed_of
from ..start_request import StartRequest, start_run
from ..types import JSON
from ..values.converter import dumps, size_of
from ..wire.journal_entries import Entry
from ..wire.limits import MAX_PAYLOAD_BYTES, summary
from ..wire.names import RERUN_OF_KEY
from ..wire.run_state import MAX_RERUNS, RunState
from ..wire.start import SCHEDULED_AT, Origin
from ..wire.storage import size_limit_with
from ..wire.workflow_ids import workflow_id_of
from .errors import RequestError, TooLargeError
from .finding import first_run_id, get_run
from .inputs import check_input

SAME: Any = object()
"""Marker for the input of the original run."""


@dataclass(frozen=True, slots=True)
class Rerun:
    """New run that does the work of another run again.

    Attributes:
        workflow_id: Temporal's workflow id of the new run.
        run_id: The new run's own id.
        event_id: The id of the event that starts it.
        original_workflow_id: Temporal's workflow id of the other run.
        original_run_id: The other run's own id.
        from_step: The first step that runs again; None if all of them do.
        kept_steps: The steps whose results the new run has from the start.
    """

    workflow_id: str
    run_id: str | None
    event_id: str
    original_workflow_id: str
    original_run_id: str
    from_step: str | None
    kept_steps: tuple[str, ...]


async def rerun(
    temporal: Client,
    id: str,
    *,
    definitions: SteporalClient | None = None,
    from_step: str | None = None,
    data: Any = SAME,
) -> Rerun:
    """Start a new run with the input of another.

    Args:
        temporal: The connection to the other run's namespace.
        id: Temporal's workflow id of the other run, or its own id.
        definitions: The client whose ``input_schema`` checks a new input.
        from_step: The first step that runs again; what had finished before it began is kept.
        data: A new input, or ``SAME``.

    Raises:
        NoSuchRunError: The run does not exist.
        HistoryError: It is not a run of Steporal's.
        RequestError: The run does not have this step.
        TooLargeError: What is kept is too large.
        InvalidInputError: The new input does not fit the ``input_schema``.
    """
    story = await Reader(temporal).read(await get_run(temporal, id))
    described = story.described
    event_id = new_ulid()
    kept = None if from_step is None else kept_before(story, from_step)
    origin = await _origin(temporal, story, event_id)
    if kept is not None and origin.ts is None:  # so that ctx.now() returns what it returned in the original run
        origin = replace(origin, ts=int((story.first_task or story.started).timestamp() * 1000))
    app = described.typed_search_attributes.get(APP) or await _app_of(temporal, described.task_queue)
    workflow_id = workflow_id_of(app, described.workflow_type, event_id)
    if data is not SAME:
        check_input(definitions, app, described.workflow_type, data)
    rerun_of: dict[str, JSON] = {"workflow_id": described.id, "run_id": first_run_id(described), "from": from_step}
    note = f"rerun of {described.id}{f', from {from_step}' if from_step else ''}"
    request = StartRequest(
        app=app,
        workflow=described.workflow_type,
        workflow_id=workflow_id,
        task_queue=described.task_queue,
        origin=origin if data is SAME else replace(origin, exact=None),
        data=_input(story) if data is SAME else data,
        state=None if kept is None else _handed_over(temporal, kept),
        summary=summary(note),
        note=note,
        memo={RERUN_OF_KEY: rerun_of},
    )
    handle = await start_run(temporal, request)
    return Rerun(
        workflow_id,
        handle.first_execution_run_id,
        origin.id,
        described.id,
        first_run_id(described),
        from_step,
        tuple(step for step in kept.memo if step not in kept.reopens) if kept else (),
    )


async def _origin(temporal: Client, story: Story, event_id: str) -> Origin:
    """Return the start of the new run: the same event with a new id. A delivery keeps its id: the receiver knows it."""
    listened = await SteporalClient("steporal", temporal=temporal).sending.dispatcher(temporal).is_finish_listened()
    is_delivery = any(step.kind == "post" for step in story.timeline.steps)
    return replace(story.origin, id=story.origin.id if is_delivery else event_id, listened=listened, indexed=None)


def _input(story: Story) -> JSON:
    """Return the input; for a run that a schedule started, the data that it received (`cron_data`)."""
    if story.data is not None or story.origin.cron is None:
        return story.data
    scheduled = story.described.typed_search_attributes.get(SCHEDULED_AT) or story.started
    return {
        "cron": story.origin.cron,
        "scheduledAt": scheduled.isoformat(),
        "fireAt": (story.first_task or story.started).isoformat(),
    }


async def _app_of(temporal: Client, task_queue: str) -> str:
    apps = (await Catalog(temporal).read_all()).apps
    return next((app for app, queue in apps.items() if queue == task_queue), task_queue)


# --- kept steps ----------------------------------------------------------------------------------------------------


def kept_before(story: Story, step: str) -> RunState:
    """Return the state that a rerun from a step begins with: that of the original run when the step began.

    It holds the finished steps, in the order in which they finished. That includes steps that ran concurrently and had
    finished by then, because the step may have used their results. If the history of the step's start no longer
    exists, the step's place among the finished steps decides what came before it.

    Raises:
        RequestError: The run does not have this step; the message lists its steps.
        TooLargeError: The run is already a rerun of too many runs.
    """
    carried, timeline = story.rebuilt.carried, story.timeline
    finished = story.finished
    entry = next((entry for entry in timeline.steps if entry.id == step and entry.is_step), None)
    if entry is None and step not in finished:
        raise _no_such_step(story, step)
    if len(carried.reruns) >= MAX_RERUNS:
        raise TooLargeError(
            f"run {story.described.id!r} is a rerun of a rerun, {MAX_RERUNS} times over; rerun it from its beginning"
        )
    began = entry.start if entry else None
    listeners = [entry.id for entry in timeline.steps if entry.kind == "listen"]
    past = [
        each
        for each in _before(carried, step, None if began is None else story.since_start(began))
        if each.kind != "cancel"
    ]
    memo = {each.key: carried.memo[each.key] for each in past if each.kind != "timer" and each.key in carried.memo}
    kept = [listener for listener in listeners if listener in memo]
    received = {each.event["id"] for each in timeline.delivered if began is None or each.at <= began}
    return RunState(
        is_parked=False,
        started=0,
        # The body must read the same times and draw the same random numbers, or its steps would be different calls. Its
        # ids are new; in the arguments of its steps, they stand for the ids of the original run.
        reruns=[[story.described.id, first_run_id(story.described), story.origin.id], *carried.reruns],
        base=carried.base or carried.started,
        seed=carried.seed or seed_of(first_run_id(story.described)),
        attempt_began=carried.attempt_began,
        begins_anew=False,
        taken_over_until=past[-1].at if past else carried.attempt_began,
        memo=memo,
        past=[each.json() for each in past],
        boxes={listener: _box(carried.boxes.get(listener), received) for listener in kept},
        reopens=kept,
        size=sum(len(dumps(outcome)) for outcome in memo.values()),
    )


def _box(box: Any, received: Collection[str]) -> dict[str, Any]:
    """Return the inbox of a listener that must subscribe again: the received events that the run had not consumed."""
    events = [event for event in box["events"] if event["id"] in received] if box else []
    return {"topics": [], "until": 0.0, "events": events, "seen": sorted(received)}


def _before(carried: RunState, step: str, began: int | None) -> list[Entry]:
    """Return what had reached the body when a step began.

    This excludes everything after the step's own outcome, even at the same time: local steps of one workflow task are
    recorded together. If the start of the step is unknown, it is everything before the step's outcome.
    """
    past = [Entry.read(entry) for entry in carried.past]
    outcomes = (number for number, entry in enumerate(past) if entry.key == step and entry.kind == "step")
    past = past[: next(outcomes, len(past))]
    return [entry for entry in past if entry.key != step and (began is None or entry.at <= began)]


def _no_such_step(story: Story, step: str) -> RequestError:
    steps = (entry.id for entry in story.timeline.steps if entry.is_step)
    ids = list(dict.fromkeys([*steps, *story.finished]))
    close = difflib.get_close_matches(step, ids, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return RequestError(
        f"run {story.described.id!r} has no step {step!r}{hint}; it has {', '.join(map(repr, ids)) or 'none'}"
    )


def _handed_over(temporal: Client, kept: RunState) -> RawValue:
    max_bytes = size_limit_with(temporal.data_converter)
    raw = kept.raw(lambda: max_bytes(MAX_PAYLOAD_BYTES) > MAX_PAYLOAD_BYTES)
    if (size := size_of(raw)) > max_bytes(size):
        raise TooLargeError(
            f"the results of the {len(kept.memo):,} steps before it have {size:,} bytes, and Temporal accepts "
            f"{max_bytes(size):,} in one payload; rerun the run from its beginning"
        )
    return raw
