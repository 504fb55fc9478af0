"""Checks of an app: its workers, what is registered of it, and the gateway's keys."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterable, Mapping
from datetime import timedelta

import temporalio.client
from temporalio.service import RPCError, RPCStatusCode

from steporal.durations import format_duration
from steporal.encryption import Keys
from steporal.routing.catalog.defined import list_of
from steporal.routing.catalog.listing import AppList
from steporal.routing.catalog.registering import workers_of
from steporal.values.encrypted import ENCRYPTION_KEYS
from steporal.wire.names import SYSTEM_TASK_QUEUE

from ..gateway.keys import MIN_KEY_LENGTH
from ..runs.queries import PROBLEMS, quoted
from ..task_queues import TASK_TYPES, State, state_of
from .verdicts import Subject, Verdict, bad, good, listing, warning

_TOO_LONG = timedelta(seconds=30)


# --- workers -------------------------------------------------------------------------------------------------------


async def workers(subject: Subject) -> Verdict:
    """Whether somebody takes the app's tasks, and those of the catalog, the topics and mailboxes."""
    queues = [subject.client.task_queue, SYSTEM_TASK_QUEUE]
    states = {queue: await _states(subject.temporal, queue) for queue in queues}
    found = {queue: frozenset.intersection(*(state.pollers for state in of)) for queue, of in states.items()}
    missing = [queue for queue, pollers in found.items() if not pollers]
    if missing:
        return bad(
            f"no worker polls the task queue{'s' * (len(missing) > 1)} {' and '.join(map(repr, missing))}",
            f"start one: steporal worker {subject.target}",
        )
    of_bodies = states[subject.client.task_queue][0]
    if of_bodies.current is not None and of_bodies.current not in of_bodies.versions:
        return _not_current(of_bodies, of_bodies.current[1])
    return good(", ".join(f"{len(pollers)} on task queue {queue!r}" for queue, pollers in found.items()))


def _not_current(state: State, current: str) -> Verdict:
    """The workers are of versions, and none of the one that new runs are given to."""
    versions = sorted(state.versions)
    there = ", ".join(repr(build) if build else "no version" for _, build in versions)
    is_set = f"the current one is {current!r}" if current else "none is the current one"
    deployment, build = versions[-1]
    return bad(
        f"no worker takes new runs: there are workers of {there}, and {is_set}",
        "temporal worker deployment set-current-version "
        f"--deployment-name {shlex.quote(deployment)} --build-id {shlex.quote(build)}, or start workers of that one"
        if build
        else "start workers of that one",
    )


async def _states(temporal: temporalio.client.Client, queue: str) -> list[State]:
    """What Temporal says of a task queue: for bodies, and for steps."""
    return [await state_of(temporal, queue, kind) for kind in TASK_TYPES]


async def backlog(subject: Subject) -> Verdict:
    """Whether tasks wait for workers."""
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
    """Whether Temporal tries workflow tasks of the app again and again: their code does not fit, or is not there."""
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
            "`steporal runs list --status stuck`, and `steporal runs show ID` says why; "
            f"then corrected code, or `steporal recover {subject.target}`",
        )
    return good("no run is stuck")


# --- the catalog ---------------------------------------------------------------------------------------------------


async def catalog(subject: Subject) -> Verdict:
    """Whether the namespace knows the workflows as the code has them."""
    catalog = subject.client.sending.dispatcher(subject.temporal).catalog
    wanted, registered = list_of(subject.client.app), await catalog.read_app(subject.client.id)
    register = f"start its workers with this code, or `steporal sync {subject.target}`"
    if registered is None:
        if not wanted.workflows:
            return warning(f"app {wanted.id!r} has no workflows", "define some with @client.workflow")
        return bad(f"app {wanted.id!r} is not registered: no event starts its workflows", register)
    there = registered.app
    if there is None:
        return bad(f"what app {wanted.id!r} has registered cannot be read", "upgrade Steporal here, and run this again")
    if unregistered := sorted(_ids(wanted) - _ids(there)):
        return bad(f"not registered: {listing(unregistered)}", register)
    if differences := _differences(wanted, there):
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


def _differences(wanted: AppList, there: AppList) -> list[str]:
    found = []
    if surplus := sorted(_ids(there) - _ids(wanted)):
        found.append(f"registered, and not in the code: {listing(surplus)}")
    triggers = {listed.id: listed.triggers for listed in there.workflows}
    if changed := sorted(listed.id for listed in wanted.workflows if listed.triggers != triggers[listed.id]):
        found.append(f"registered with other triggers: {listing(changed)}")
    if there.task_queue != wanted.task_queue:
        found.append(f"registered on task queue {there.task_queue!r}, and not on {wanted.task_queue!r}")
    return found


async def in_force(subject: Subject) -> Verdict:
    """Whether the workers have the list of triggers that is in force."""
    registered = await subject.client.sending.dispatcher(subject.temporal).catalog.read_app(subject.client.id)
    if registered is None or registered.standing is None:
        return good("nothing is registered of the app")
    standing = registered.standing
    said = f"the list of revision {standing.revision} is in force"
    if standing.version:
        said += f", of version {standing.version!r}"
    found = await workers_of(subject.temporal, subject.client.id)
    others = [worker for worker in found if worker.digest != standing.digest]
    if not others:
        return good(said)
    revisions = listing(sorted({worker.revision for worker in others}))
    said = f"{said}; {len(others)} worker{'s have' if len(others) > 1 else ' has'} another one, of revision {revisions}"
    remedy = "give all workers of the app the same code and the same --revision, and each app its own id"
    if len(others) == len(found):
        return bad(
            f"{said}, and none has that one",
            f"wait for two minutes, or register the list of the code that is deployed: steporal sync {subject.target} "
            "--take-over",
        )
    return warning(said, f"unless a deployment is under way, {remedy}")


# --- encryption ----------------------------------------------------------------------------------------------------


async def encryption(subject: Subject) -> Verdict:
    """Whether values are encrypted, and by all apps with the key of this process."""
    snapshot = await subject.client.sending.dispatcher(subject.temporal).catalog.read_all()
    keys = getattr(subject.temporal.data_converter.payload_codec, "keys", None)
    if not isinstance(keys, Keys):
        return good("values are not encrypted by keys in settings")
    if not keys.encryption:
        return good(f"values are not encrypted, and read with {_named(keys)}")
    said = f"values are encrypted with key {keys.encryption[0].id!r}, and read with {_named(keys)}"
    if snapshot.stale:
        return warning(
            f"{said}; not so what is registered of {listing(sorted(snapshot.stale))}",
            f"start its workers again with the same {ENCRYPTION_KEYS}",
        )
    return good(said)


def _named(keys: Keys) -> str:
    return listing(sorted({key.id for key in keys}))


# --- schedules -----------------------------------------------------------------------------------------------------


async def schedules(subject: Subject) -> Verdict:
    """Whether the schedules of cron triggers are there, and run."""
    wanted = list_of(subject.client.app).schedules
    found = dict(zip(wanted, await asyncio.gather(*(_is_paused(subject.temporal, id) for id in wanted)), strict=True))
    if missing := [id for id, is_paused in found.items() if is_paused is None]:
        return bad(f"there is no schedule {listing(missing)}", f"steporal sync {subject.target}")
    if paused := [id for id, is_paused in found.items() if is_paused]:
        return warning(f"paused: {listing(paused)}", _unpause(subject, paused[0]))
    if not wanted:
        return good("no workflow has a cron trigger")
    return good(
        "1 schedule exists and is not paused" if len(wanted) == 1 else f"{len(wanted)} schedules exist; none is paused"
    )


async def _is_paused(temporal: temporalio.client.Client, id: str) -> bool | None:
    """Whether a schedule is paused; None if there is none."""
    try:
        return (await temporal.get_schedule_handle(id).describe()).schedule.state.paused
    except RPCError as err:
        if err.status == RPCStatusCode.NOT_FOUND:
            return None
        raise


def _unpause(subject: Subject, id: str) -> str:
    return f"temporal schedule toggle --unpause --namespace {subject.temporal.namespace} --schedule-id {id!r}"


# --- the gateway ---------------------------------------------------------------------------------------------------


async def gateway_keys(subject: Subject) -> Verdict:
    """Whether the keys are there that a gateway with these settings would take, and are hard to guess."""
    keys: Mapping[str, Iterable[str]] = {"event_keys": subject.event_keys, "api_keys": subject.api_keys}
    count = f"{len(subject.event_keys)} event keys, {len(subject.api_keys)} API keys"
    if subject.insecure_any_key and not (subject.event_keys and subject.api_keys):
        return warning(f"{count}; what has none is open to everybody", "set STEPORAL_EVENT_KEYS and STEPORAL_API_KEYS")
    if not subject.event_keys and not subject.api_keys:
        return warning(
            "none are set here: a gateway does not start with these settings",
            "where there is to be one, set STEPORAL_EVENT_KEYS and STEPORAL_API_KEYS",
        )
    if short := [name for name, given in keys.items() if any(len(key) < MIN_KEY_LENGTH for key in given)]:
        return bad(
            f"{' and '.join(short)} have a key of fewer than {MIN_KEY_LENGTH} characters: no gateway starts with it",
            "make keys that nobody guesses: openssl rand -hex 32",
        )
    if set(subject.event_keys) & set(subject.api_keys):
        return warning("an event key is an API key, too", "event keys are in paths and browsers: let both differ")
    return good(count)
