"""``steporal runs rerun``: the same work again, in a new run."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from rich.markup import escape
from temporalio.client import Client
from temporalio.common import RawValue

import steporal
from steporal.events import new_ulid
from steporal.observability.search_attributes import APP
from steporal.routing.catalog.reading import Catalog
from steporal.runtime.body import seed_of
from steporal.start_request import StartRequest, start_run
from steporal.types import JSON
from steporal.values.converter import dumps, size_of
from steporal.wire.journal_entries import Entry
from steporal.wire.limits import MAX_PAYLOAD_BYTES, summary
from steporal.wire.names import RERUN_OF_KEY
from steporal.wire.run_state import MAX_RERUNS, RunState
from steporal.wire.start import SCHEDULED_AT, Origin
from steporal.wire.storage import most_with
from steporal.wire.workflow_ids import workflow_id_of

from ..output import print_json, print_line, say
from ..problems import Failure, Mistake
from ..send import check_input
from .finding import first_run_id, get_run
from .story import Reader, Story

SAME: Any = object()
"""The input is that of the run before."""


async def run_rerun(
    temporal: Client,
    id: str,
    *,
    definitions: steporal.Client | None = None,
    from_step: str | None,
    data: Any,
    as_json: bool,
) -> None:
    """Start a new run with the input of another, and print its workflow id.

    Args:
        temporal: Where the other run is.
        id: The other run's id.
        definitions: The client by whose ``input_schema`` another input is checked.
        from_step: The step from which on everything is done again; what had finished before it began is kept.
        data: Another input, or ``SAME``.
        as_json: Print JSON.

    Raises:
        Failure: There is no such run, or what is kept is too large.
        Mistake: The run has no such step.
        InvalidInputError: The other input does not fit the ``input_schema``.
    """
    story = await Reader(temporal).read(await get_run(temporal, id))
    described = story.described
    event_id = new_ulid()
    kept = None if from_step is None else kept_before(story, from_step)
    origin = await _origin(temporal, story, event_id)
    if kept is not None and origin.ts is None:  # the body reads the time that it had, as it does from ctx.now()
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
    steps = [step for step in kept.memo if step not in kept.reopens] if kept else []
    if as_json:
        started = {"workflow_id": workflow_id, "run_id": handle.first_execution_run_id, "event_id": origin.id}
        print_json({**started, "rerun_of": rerun_of, "kept_steps": steps})
        return
    print_line(workflow_id)
    if from_step is not None:
        say(f"  kept of the run before: {escape(', '.join(steps)) or 'nothing'}")


async def _origin(temporal: Client, story: Story, event_id: str) -> Origin:
    """What starts the new run: the same event, with an id of its own; a delivery keeps it, as the receiver knows it."""
    listened = await steporal.Client("steporal", temporal=temporal).sending.dispatcher(temporal).is_finish_listened()
    is_delivery = any(step.kind == "post" for step in story.timeline.steps)
    return replace(story.origin, id=story.origin.id if is_delivery else event_id, listened=listened, indexed=None)


def _input(story: Story) -> JSON:
    """The input; of a run that a schedule started, what it was given then (`cron_data`)."""
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


# --- what is kept --------------------------------------------------------------------------------------------------


def kept_before(story: Story, step: str) -> RunState:
    """What a run begins with that does everything again from a step on: what the run before had, when that step began.

    These are the finished steps, in the order in which they finished: of steps that ran beside it those, too, that were
    done by then, as it may have needed what they returned. Where the history of the step's begin is no more, its place
    among the finished steps says what was before it.

    Raises:
        Mistake: The run has no such step; the message lists those that it has.
        Failure: It repeats too many runs already.
    """
    carried, timeline = story.rebuilt.carried, story.timeline
    finished = story.finished
    entry = next((entry for entry in timeline.steps if entry.id == step and entry.is_step), None)
    if entry is None and step not in finished:
        raise _no_such_step(story, step)
    if len(carried.reruns) >= MAX_RERUNS:
        raise Failure(
            f"run {story.described.id!r} is a rerun of a rerun, {MAX_RERUNS} times over; rerun it from its beginning, "
            "without --from"
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
    heard = {each.event["id"] for each in timeline.delivered if began is None or each.at <= began}
    return RunState(
        is_parked=False,
        started=0,
        # The body reads the times and draws the random numbers that it had, or its steps would be other calls. The ids
        # are its own; in what its steps are called with, they stand for those that the run before had.
        reruns=[[story.described.id, first_run_id(story.described), story.origin.id], *carried.reruns],
        base=carried.base or carried.started,
        seed=carried.seed or seed_of(first_run_id(story.described)),
        attempt_began=carried.attempt_began,
        begins_anew=False,
        taken_over_until=past[-1].at if past else carried.attempt_began,
        memo=memo,
        past=[each.json() for each in past],
        boxes={listener: _box(carried.boxes.get(listener), heard) for listener in kept},
        reopens=kept,
        size=sum(len(dumps(outcome)) for outcome in memo.values()),
    )


def _box(box: Any, heard: Collection[str]) -> dict[str, Any]:
    """What a listener begins with that has to subscribe for itself: the events that had come and nobody had taken."""
    events = [event for event in box["events"] if event["id"] in heard] if box else []
    return {"topics": [], "until": 0.0, "events": events, "seen": sorted(heard)}


def _before(carried: RunState, step: str, began: int | None) -> list[Entry]:
    """What had reached the body when a step began.

    That is nothing that came after the step's own outcome, even at the same time: local steps of one workflow task are
    recorded together. Where it is not known when the step began, it is all that came before its outcome.
    """
    past = [Entry.read(entry) for entry in carried.past]
    outcomes = (number for number, entry in enumerate(past) if entry.key == step and entry.kind == "step")
    past = past[: next(outcomes, len(past))]
    return [entry for entry in past if entry.key != step and (began is None or entry.at <= began)]


def _no_such_step(story: Story, step: str) -> Mistake:
    steps = (entry.id for entry in story.timeline.steps if entry.is_step)
    ids = list(dict.fromkeys([*steps, *story.finished]))
    close = difflib.get_close_matches(step, ids, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return Mistake(
        f"run {story.described.id!r} has no step {step!r}{hint}; it has {', '.join(map(repr, ids)) or 'none'}"
    )


def _handed_over(temporal: Client, kept: RunState) -> RawValue:
    most = most_with(temporal.data_converter)
    raw = kept.raw(lambda: most(MAX_PAYLOAD_BYTES) > MAX_PAYLOAD_BYTES)
    if (size := size_of(raw)) > most(size):
        raise Failure(
            f"what the {len(kept.memo):,} steps before have returned has {size:,} bytes, and Temporal takes "
            f"{most(size):,} in one payload; rerun the run from its beginning, without --from"
        )
    return raw
