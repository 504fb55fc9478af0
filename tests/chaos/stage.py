"""What a play does with runs: start them, send them something, wait for them, and say what must be true of them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import temporalio.client
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.service import RPCError, RPCStatusCode

import steporal
from steporal import (
    AlreadyStartedError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    SendSignalError,
    TemporalCallError,
    Workflow,
)
from steporal.wire.names import OPEN_MAILBOX, SUBSCRIBE_RUN

from .effects import Effects, Phase

T = TypeVar("T")

_TIMER = EventType.EVENT_TYPE_TIMER_STARTED
_BEGINNINGS = tuple(f'"{name}"'.encode() for name in (SUBSCRIBE_RUN, OPEN_MAILBOX))
_LOOK = 0.15
_NEVER = (RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.UNIMPLEMENTED)
"""What Temporal refuses however often it is asked."""

UNKNOWN = "unknown"
"""What the sender of a signal was told if it was told nothing."""

ANY = object()
"""A result that is not compared."""


@dataclass(slots=True)
class Ended:
    """How a run has ended.

    Attributes:
        how: ``completed``, ``cancelled``, or the class of the error that it failed with.
        result: What it returned.
    """

    how: str
    result: Any = None


@dataclass(slots=True)
class Expected:
    """What must be true of a run.

    Attributes:
        steps: The keys of the steps that have happened when it has ended.
        ended: How it has ended; None as long as it has not.
    """

    workflow_id: str
    steps: frozenset[str]
    ended: Ended | None = None


@dataclass(slots=True)
class Findings:
    """What plays have found.

    Attributes:
        runs: All runs that there must be, by workflow id.
        problems: What must not be, in words.
        plays: How often each kind of play has been played to its end.
    """

    runs: dict[str, Expected] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    plays: dict[str, int] = field(default_factory=dict)


class Stage:
    """One play's view of the world.

    Attributes:
        name: The play's, unique; events and signals are named after it.
        number: A number, unique among plays.
        random: Its chance.
        scale: How large fan-outs are.
        waits_for: What it waits for now, to be told if it waits for ever.
    """

    def __init__(
        self,
        name: str,
        number: int,
        *,
        temporal: temporalio.client.Client,
        sender: steporal.Client,
        effects: Effects,
        findings: Findings,
        chance: random.Random,
        scale: int,
    ) -> None:
        self.name = name
        self.number = number
        self.random = chance
        self.scale = scale
        self.waits_for = "nothing"
        self._temporal = temporal
        self._sender = sender
        self._effects = effects
        self._findings = findings

    # --- doing -----------------------------------------------------------------------------------------------------

    async def start(self, workflow: Workflow[Any, Any], input: Any, *steps: str) -> tuple[str, str]:
        """Start a run, exactly once; its workflow id and its run id.

        Args:
            workflow: What to start.
            input: Its input.
            steps: The keys of the steps that will have happened when it has ended.
        """
        workflow_id = f"{workflow.id}/{self.name}"
        self.expect(workflow_id, *steps)

        async def start() -> tuple[str, str]:
            try:
                run = await self._sender.start_workflow(workflow, input, id=workflow_id)
            except AlreadyStartedError:  # by the try before, whose answer was lost
                described = await self._temporal.get_workflow_handle(workflow_id).describe()
                return workflow_id, described.raw_description.workflow_execution_info.first_run_id
            return workflow_id, run.run_id

        return await self._insist(start, f"start {workflow_id}")

    async def send(self, name: str, id: str, data: Mapping[str, Any] | None = None) -> None:
        """Send an event, until Temporal has taken it."""
        event = {"name": name, "id": id, "data": dict(data or {})}
        await self._insist(lambda: self._sender.send_event(event), f"send {name} {id}")
        self._effects.note_sent("event", name, id, "taken")

    async def signal(self, name: str, data: Any) -> str | None:
        """Send a signal once; what the sender is told: a run's id, None, or ``UNKNOWN``."""
        self.waits_for = f"send signal {name}"
        try:
            told = (await self._sender.send_signal(name, data)).run_id
        except SendSignalError:
            told = UNKNOWN
        self._effects.note_sent("signal", name, str(data), str(told))
        return told

    async def until_done(self, workflow_id: str, step: str) -> None:
        """Wait until a step of a run has happened."""
        await self._until(lambda: self.count(workflow_id, step, "end") > 0, f"step {step!r} of {workflow_id}")

    async def until_waiting(self, workflow_id: str, waits: int = 1) -> None:
        """Wait until a run has subscribed to topics, or opened mailboxes, so many times."""

        async def count() -> int:
            return sum([_begins_wait(event) async for event in self._events(workflow_id)])

        while await self._insist(count, f"wait {waits} of {workflow_id}") < waits:
            await asyncio.sleep(_LOOK)

    async def until_sleeping(self, workflow_id: str, step: str) -> None:
        """Wait until a run sleeps in a step; the pauses between attempts of its local activities are timers as well."""

        async def sleeps() -> bool:
            return any([_begins_sleep(event, step) async for event in self._events(workflow_id)])

        while not await self._insist(sleeps, f"sleep {step!r} of {workflow_id}"):
            await asyncio.sleep(_LOOK)

    async def _events(self, workflow_id: str) -> AsyncIterator[HistoryEvent]:
        """The events of all executions of a run, which parks: those of the last one first."""
        run_id: str | None = None
        while run_id != "":
            history = await self._temporal.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
            for event in history.events:
                yield event
            run_id = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id

    async def runs_of(self, workflow: Workflow[Any, Any], detail: str, count: int = 1) -> list[str]:
        """Wait until so many runs of a workflow have noted something; their workflow ids."""

        def found() -> list[str]:
            return self._effects.runs(workflow.id, detail)

        await self._until(lambda: len(found()) >= count, f"{count} runs of {workflow.id} for {detail}")
        return found()

    def count(self, workflow_id: str, step: str, phase: Phase) -> int:
        """How often a step of a run has begun, ended or raised so far."""
        return self._effects.count(workflow_id, step, phase)

    async def pause(self, longest: float) -> None:
        """Let a random time go by."""
        self.waits_for = "time"
        await asyncio.sleep(self.random.uniform(0, longest))

    # --- judging ---------------------------------------------------------------------------------------------------

    def expect(self, workflow_id: str, *steps: str) -> str:
        """There must be such a run; it will have taken these steps."""
        self._findings.runs[workflow_id] = Expected(workflow_id, frozenset(steps))
        return workflow_id

    def demand(self, condition: bool, otherwise: str) -> None:
        """Something must be true."""
        if not condition:
            self._findings.problems.append(f"{self.name}: {otherwise}")

    async def ended(self, workflow_id: str, how: str = "completed", result: Any = ANY) -> Ended:
        """Wait for the end of a run that there must be, and compare it.

        Args:
            workflow_id: The run.
            how: How it must end: ``completed``, ``cancelled``, or the class of the error that it fails with.
            result: What it must return.
        """

        async def end() -> Ended | None:
            try:
                return Ended("completed", await (await self._sender.get_run(workflow_id)).result())
            except RunCancelledError:
                return Ended("cancelled")
            except RunFailedError as err:
                return Ended(err.name)
            except RunNotFoundError:
                return None

        ended = await self._insist(end, f"the end of {workflow_id}")
        if ended is None:
            self.demand(False, f"there is no run {workflow_id}")
            return Ended("missing")
        self._findings.runs[workflow_id].ended = ended
        self.demand(ended.how == how, f"{workflow_id} has ended as {ended.how}, not {how}")
        if result is not ANY:
            self.demand(ended.result == result, f"{workflow_id} returned {ended.result!r}, not {result!r}")
        return ended

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        self.waits_for = what
        while not condition():
            await asyncio.sleep(_LOOK)

    async def _insist(self, action: Callable[[], Awaitable[T]], what: str) -> T:
        """Try again for as long as Temporal cannot be reached."""
        self.waits_for = what
        while True:
            try:
                return await action()
            except (RPCError, TemporalCallError) as err:
                cause = err if isinstance(err, RPCError) else err.__cause__
                if isinstance(cause, RPCError) and cause.status in _NEVER:
                    raise
            await asyncio.sleep(_LOOK)


def _begins_sleep(event: HistoryEvent, step: str) -> bool:
    """Whether it starts the timer of a sleep, which is named by its summary."""
    return event.event_type == _TIMER and event.user_metadata.summary.data == json.dumps(step).encode()


def _begins_wait(event: HistoryEvent) -> bool:
    """Whether it is the marker of a local activity that subscribes, or opens a mailbox."""
    details = event.marker_recorded_event_attributes.details
    return any(name in payload.data for part in details.values() for payload in part.payloads for name in _BEGINNINGS)
