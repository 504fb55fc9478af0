"""``steporal runs rerun``: the same work again, in a new run."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import click
from rich.markup import escape
from temporalio.client import Client
from temporalio.common import RawValue, WorkflowIDReusePolicy

import steporal
from steporal.converter import dumps, size_of
from steporal.events import new_ulid
from steporal.routing.catalog import Catalog
from steporal.runtime.carried import Carried
from steporal.runtime.limits import MAX_PAYLOAD_BYTES, summary
from steporal.runtime.start import SCHEDULED_AT, Origin
from steporal.runtime.storage import most_with
from steporal.search_attributes import APP, of_run, start_indexed
from steporal.types import JSON

from ..output import print_json, say
from ..problems import Failure, Mistake
from .finding import first_run_id, get_run
from .story import RERUN_OF, Reader, Story
from .timeline import Delivered

SAME: Any = object()
"""The input is that of the run before."""


async def run_rerun(temporal: Client, id: str, *, from_step: str | None, data: Any, as_json: bool) -> None:
    """Start a new run with the input of another, and print its workflow id.

    Args:
        temporal: Where the other run is.
        id: The other run's id.
        from_step: The step from which on everything is done again; what had finished before it began is kept.
        data: Another input, or ``SAME``.
        as_json: Print JSON.

    Raises:
        Failure: There is no such run, or what is kept is too large.
        Mistake: The run has no such step.
    """
    story = await Reader(temporal).read(await get_run(temporal, id))
    described = story.described
    event_id = new_ulid()
    workflow_id = f"{described.workflow_type}/{event_id}"
    kept = None if from_step is None else kept_before(story, from_step)
    origin = await _origin(temporal, story, event_id)
    arguments = origin.arguments(_input(story)) if data is SAME else replace(origin, exact=None).arguments(data)
    if kept is not None:
        arguments.append(_handed_over(temporal, kept))
    app = described.typed_search_attributes.get(APP) or await _app_of(temporal, described.task_queue)
    rerun_of: dict[str, JSON] = {"workflow_id": described.id, "run_id": first_run_id(described), "from": from_step}
    what = f"rerun of {described.id}{f', from {from_step}' if from_step else ''}"
    handle = await start_indexed(
        temporal,
        of_run(app, described.workflow_type, origin.name, origin.id),
        lambda attributes: temporal.start_workflow(
            described.workflow_type,
            args=arguments,
            id=workflow_id,
            task_queue=described.task_queue,
            result_type=RawValue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            search_attributes=attributes,
            memo={RERUN_OF: rerun_of},
            static_summary=summary(what),
            static_details=f"{origin.details()}\n\n{what}",
        ),
    )
    steps = list(kept.memo) if kept else []
    if as_json:
        started = {"workflow_id": workflow_id, "run_id": handle.first_execution_run_id, "event_id": origin.id}
        print_json({**started, "rerun_of": rerun_of, "kept_steps": steps})
        return
    click.echo(workflow_id)
    if from_step is not None:
        say(f"  kept of the run before: {escape(', '.join(steps)) or 'nothing'}")


async def _origin(temporal: Client, story: Story, event_id: str) -> Origin:
    """What starts the new run: the same event, with an id of its own; a delivery keeps it, as the receiver knows it."""
    listened = await steporal.Client("steporal", temporal=temporal).dispatcher(temporal).is_finish_listened()
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
    apps = (await Catalog(temporal).read()).apps
    return next((app.id for app in apps.values() if app.task_queue == task_queue), task_queue)


# --- what is kept --------------------------------------------------------------------------------------------------


def kept_before(story: Story, step: str) -> Carried:
    """What a run begins with that does everything again from a step on: what the run before had, when that step began.

    These are the finished steps, in the order in which they finished: of steps that ran beside it those, too, that were
    done by then, as it may have needed what they returned. Where the history of the step's begin is no more, its place
    among the finished steps says what was before it.

    Raises:
        Mistake: The run has no such step; the message lists those that it has.
    """
    memo, timeline = story.finished, story.timeline
    entry = next((entry for entry in timeline.steps if entry.id == step and entry.is_step), None)
    if entry is None and step not in memo:
        raise _no_such_step(story, step)
    began = entry.start if entry else None
    if began is None:
        before = list(memo)[: list(memo).index(step)]
    else:
        since_start = story.since_start(began)
        before = [key for key, (_, at) in memo.items() if at <= since_start]
    listeners = [entry.id for entry in timeline.steps if entry.kind == "listen"]
    kept = {key: (memo[key][0], 0) for key in before if key not in (step, *listeners)}
    taken = {str(outcome[0]["id"]) for outcome, _ in kept.values() if _is_event(outcome)}
    heard = [
        each for each in timeline.delivered if (began is None or each.at <= began) and each.event["id"] not in taken
    ]
    return Carried(
        is_parked=False,
        started=0,
        seed="",
        memo=kept,
        boxes=_boxes(listeners, [each for each in heard if each.event["id"] not in taken]),
        size=sum(len(dumps(outcome)) for outcome, _ in kept.values()),
    )


def _is_event(outcome: Any) -> bool:
    return isinstance(outcome, list) and isinstance(outcome[0], dict) and {"id", "name", "data"} <= outcome[0].keys()


def _boxes(listeners: Iterable[str], heard: Sequence[Delivered]) -> dict[str, Any]:
    """What listeners begin with, which are made again, as the new run has to hear of events itself.

    A history does not say which ``next`` has returned which event, unless the run has continued as new since; the body
    comes past them again, and takes the events in the order in which they came.
    """
    boxes = {}
    for listener in listeners:
        if events := [each.event for each in heard if each.listener == listener]:
            ids = [event["id"] for event in events]
            boxes[listener] = {"topics": [], "until": 0.0, "events": events, "seen": ids}
    return boxes


def _no_such_step(story: Story, step: str) -> Mistake:
    steps = (entry.id for entry in story.timeline.steps if entry.is_step)
    ids = list(dict.fromkeys([*steps, *story.finished]))
    close = difflib.get_close_matches(step, ids, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return Mistake(
        f"run {story.described.id!r} has no step {step!r}{hint}; it has {', '.join(map(repr, ids)) or 'none'}"
    )


def _handed_over(temporal: Client, kept: Carried) -> RawValue:
    most = most_with(temporal.data_converter)
    raw = kept.raw(lambda: most(MAX_PAYLOAD_BYTES) > MAX_PAYLOAD_BYTES)
    if (size := size_of(raw)) > most(size):
        raise Failure(
            f"what the {len(kept.memo):,} steps before have returned has {size:,} bytes, and Temporal takes "
            f"{most(size):,} in one payload; rerun the run from its beginning, without --from"
        )
    return raw
