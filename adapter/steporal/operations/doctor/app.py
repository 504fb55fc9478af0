"""Checks of an app: its workers, its runs, and its registered workflows and schedules."""

from __future__ import annotations

import asyncio
import shlex
from datetime import timedelta

import temporalio.client
from temporalio.service import RPCError, RPCStatusCode

from ...durations import format_duration
from ...encryption import Keys
from ...routing.catalog.defined import list_of
from ...routing.catalog.listing import AppList
from ...routing.catalog.registering import workers_of
from ...values.encrypted import ENCRYPTION_KEYS
from ...wire.names import SYSTEM_TASK_QUEUE
from ..queries import PROBLEMS, quoted
from ..task_queues import TASK_TYPES, State, state_of
from .verdicts import Subject, Verdict, bad, good, listing, warning

_TOO_LONG = timedelta(seconds=30)


# --- workers -------------------------------------------------------------------------------------------------------


async def workers(subject: Subject) -> Verdict:
    """Check that workers poll the app's task queue and the system task queue (catalog, topics, mailboxes)."""
    queues = [subject.client.task_queue, SYSTEM_TASK_QUEUE]
    states = {queue: await _states(subject.temporal, queue) for queue in queues}
    pollers_of = {queue: frozenset.intersection(*(state.pollers for state in of)) for queue, of in states.items()}
    missing = [queue for queue, pollers in pollers_of.items() if not pollers]
    if missing:
        return bad(
            f"no worker polls the task queue{'s' * (len(missing) > 1)} {' and '.join(map(repr, missing))}",
            f"start one: steporal worker {subject.target}",
        )
    of_bodies = states[subject.client.task_queue][0]
    if of_bodies.current is not None and of_bodies.current not in of_bodies.versions:
        return _not_current(of_bodies, of_bodies.current[1])
    return good(", ".join(f"{len(pollers)} on task queue {queue!r}" for queue, pollers in pollers_of.items()))


def _not_current(state: State, current: str) -> Verdict:
    """Return the verdict for workers that have versions, none of which is the version that receives new runs."""
    versions = sorted(state.versions)
    polling = ", ".join(repr(build) if build else "no version" for _, build in versions)
    is_set = f"the current version is {current!r}" if current else "no version is current"
    deployment, build = versions[-1]
    return bad(
        f"no worker takes new runs: workers of {polling} poll, and {is_set}",
        "temporal worker deployment set-current-version "
        f"--deployment-name {shlex.quote(deployment)} --build-id {shlex.quote(build)}, or start workers of that version"
        if build
        else "start workers of that version",
    )


async def _states(temporal: temporalio.client.Client, queue: str) -> list[State]:
    """Return the state of a task queue for bodies and for steps."""
    return [await state_of(temporal, queue, kind) for kind in TASK_TYPES]


async def backlog(subject: Subject) -> Verdict:
    """Check that no tasks wait for workers."""
    states = await _states(subject.temporal, subject.client.task_queue)
    late = [
        f"{state.backlog:,} {name}, the first for {state.age.total_seconds():.0f} s"
        for name, state in zip(("bodies", "steps"), states, strict=True)
        if state.backlog and state.age > _TOO_LONG
    ]
    if late:
        return warning(f"waiting for workers: {'; '.join(late)}", "start more workers, or raise --max-concurrent-steps")
    return good(f"nothing has waited for a worker for {format_duration(_TOO_LONG)}")


# --- runs ----------------------------------------------------------------------------------------------------------


async def stuck_runs(subject: Subject) -> Verdict:
    """Check that no run of the app is stuck, with a workflow task that Temporal retries as its code does not fit."""
    queue = quoted(subject.client.task_queue)
    try:
        count = (
            await subject.temporal.count_workflows(
                f"TaskQueue = {queue} AND ExecutionStatus = 'Running' AND {PROBLEMS.name} IS NOT NULL"
            )
        ).count
    except RPCError as err:
        if err.status != RPCStatusCode.INVALID_ARGUMENT:
            raise
        return good("Temporal does not mark them before version 1.30; the worker's log names them")
    if count:
        return bad(
            f"{count:,} run{'s are' if count > 1 else ' is'} stuck: the code does not fit, or fails the workflow task",
            "`steporal runs show ID` gives the reason of each in `steporal runs list --status stuck`; "
            f"deploy corrected code, or run `steporal recover {subject.target}`",
        )
    return good("no run is stuck")


# --- the catalog ---------------------------------------------------------------------------------------------------


async def catalog(subject: Subject) -> Verdict:
    """Check that the catalog lists the workflows as the code defines them."""
    catalog = subject.client.sending.dispatcher(subject.temporal).catalog
    wanted, registered = list_of(subject.client.app), await catalog.read_app(subject.client.id)
    register = f"start its workers with this code, or `steporal sync {subject.target}`"
    if registered is None:
        if not wanted.workflows:
            return warning(f"app {wanted.id!r} has no workflows", "define some with @client.workflow")
        return bad(f"app {wanted.id!r} is not registered: no event starts its workflows", register)
    listed = registered.app
    if listed is None:
        return bad(f"the registered list of app {wanted.id!r} cannot be read", "upgrade Steporal, and run this again")
    if unregistered := sorted(_ids(wanted) - _ids(listed)):
        return bad(f"not registered: {listing(unregistered)}", register)
    if differences := _differences(wanted, listed):
        return warning("; ".join(differences), f"{register}; unless the code here is not the code that is deployed")
    if unreadable := (await catalog.read_all()).unreadable():
        (match, entry, why), more = unreadable[0], len(unreadable) - 1
        return warning(
            f"workflow {match.workflow!r} of app {match.app!r} has a trigger on {entry.event!r} that this version "
            f"cannot read: {why}{f' (and {more} more)' if more else ''}",
            "upgrade Steporal in the processes that send events, such as gateways; or correct the expression",
        )
    count = len(wanted.workflows)
    return good(f"{count} workflow{'s are' if count != 1 else ' is'} registered as in the code")


def _ids(app: AppList) -> set[str]:
    return {listed.id for listed in app.workflows}


def _differences(wanted: AppList, registered: AppList) -> list[str]:
    differences = []
    if surplus := sorted(_ids(registered) - _ids(wanted)):
        differences.append(f"registered, but not in the code: {listing(surplus)}")
    triggers = {listed.id: listed.triggers for listed in registered.workflows}
    if changed := sorted(listed.id for listed in wanted.workflows if listed.triggers != triggers[listed.id]):
        differences.append(f"registered with other triggers: {listing(changed)}")
    if registered.task_queue != wanted.task_queue:
        differences.append(f"registered on task queue {registered.task_queue!r} instead of {wanted.task_queue!r}")
    return differences


async def in_force(subject: Subject) -> Verdict:
    """Check that the workers have the list of triggers that is in force."""
    registered = await subject.client.sending.dispatcher(subject.temporal).catalog.read_app(subject.client.id)
    if registered is None or registered.standing is None:
        return good("the app has no registered list")
    standing = registered.standing
    message = f"the list of revision {standing.revision} is in force"
    if standing.version:
        message += f", of version {standing.version!r}"
    serving = await workers_of(subject.temporal, subject.client.id)
    others = [worker for worker in serving if worker.digest != standing.digest]
    if not others:
        return good(message)
    revisions = listing(sorted({worker.revision for worker in others}))
    count = len(others)
    message += f"; {count} worker{'s have' if count > 1 else ' has'} a different list, of revision {revisions}"
    remedy = "give all workers of the app the same code and the same --revision, and each app its own id"
    if len(others) == len(serving):
        return bad(
            f"{message}; no worker has the list in force",
            f"wait for two minutes, or register the list of the code that is deployed: steporal sync {subject.target} "
            "--take-over",
        )
    return warning(message, f"unless a deployment is under way, {remedy}")


# --- encryption ----------------------------------------------------------------------------------------------------


async def encryption(subject: Subject) -> Verdict:
    """Check that values are encrypted, and that all apps use the key of this process."""
    snapshot = await subject.client.sending.dispatcher(subject.temporal).catalog.read_all()
    keys = getattr(subject.temporal.data_converter.payload_codec, "keys", None)
    if not isinstance(keys, Keys):
        return good("values are not encrypted by keys in settings")
    if not keys.encryption:
        return good(f"values are not encrypted, and read with {_named(keys)}")
    message = f"values are encrypted with key {keys.encryption[0].id!r}, and read with {_named(keys)}"
    if snapshot.stale:
        return warning(
            f"{message}; the registered lists of {listing(sorted(snapshot.stale))} are not",
            f"restart the workers of these apps with the same {ENCRYPTION_KEYS}",
        )
    return good(message)


def _named(keys: Keys) -> str:
    return listing(sorted({key.id for key in keys}))


# --- schedules -----------------------------------------------------------------------------------------------------


async def schedules(subject: Subject) -> Verdict:
    """Check that the schedules of cron triggers exist, and are not paused."""
    wanted = list_of(subject.client.app).schedules
    states = dict(zip(wanted, await asyncio.gather(*(_is_paused(subject.temporal, id) for id in wanted)), strict=True))
    if missing := [id for id, is_paused in states.items() if is_paused is None]:
        return bad(f"there is no schedule {listing(missing)}", f"steporal sync {subject.target}")
    if paused := [id for id, is_paused in states.items() if is_paused]:
        return warning(f"paused: {listing(paused)}", _unpause(subject, paused[0]))
    if not wanted:
        return good("no workflow has a cron trigger")
    return good(
        "1 schedule exists and is not paused" if len(wanted) == 1 else f"{len(wanted)} schedules exist; none is paused"
    )


async def _is_paused(temporal: temporalio.client.Client, id: str) -> bool | None:
    """Return whether a schedule is paused; None if it does not exist."""
    try:
        return (await temporal.get_schedule_handle(id).describe()).schedule.state.paused
    except RPCError as err:
        if err.status == RPCStatusCode.NOT_FOUND:
            return None
        raise


def _unpause(subject: Subject, id: str) -> str:
    return f"temporal schedule toggle --unpause --namespace {subject.temporal.namespace} --schedule-id {id!r}"
