"""Runs a scenario from its start to its end, with or without interruptions."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from temporalio.worker import UnsandboxedWorkflowRunner

from steporal.closures.own_code import OwnCode
from steporal.runtime.compiled import workflow_class
from steporal.sandbox.runner import SteporalWorkflowRunner, beside_ours
from steporal.sandbox.untrusted_starts import ArityRunner

from .app import client
from .core import NotDeterministic, Surroundings, TaskFailed, definition_of
from .effects import Recorder
from .interruptions import Interrupted, Plan
from .programs import Arrival, Scenario, to_data
from .recovering import NotRecovered
from .rerunning import Kept
from .service import START, Ended, Service, Stuck

SECOND = 10**9
_MOST_SECONDS = 60
_LATER = 86_400 * SECOND
"""How long after a run another one runs it again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        scenario: What was run.
        ended: How it ended; None if it did not.
        problem: Why it did not.
        begun: How often each step function has begun, and each event was sent.
        recorder: All of that, and what may have begun once more.
        moments: When its workflow tasks were, in nanoseconds.
        service: All of it.
    """

    scenario: Scenario
    ended: Ended | None
    problem: str
    begun: Counter[str]
    recorder: Recorder
    moments: list[int]
    service: Service = field(repr=False)

    @property
    def seen(self) -> list[Any]:
        """What the branches of the program saw, in order."""
        if self.ended is not None and isinstance(self.ended.value, dict):
            return list(self.ended.value["seen"])
        return list(self.recorder.last or ())

    @property
    def result(self) -> Any:
        """What the handler returned, or how the run ended."""
        if self.ended is None:
            return self.problem
        return self.ended.value["result"] if isinstance(self.ended.value, dict) else [self.ended.kind, self.ended.value]


@cache
def surroundings(sandboxed: bool = False) -> Surroundings:
    """A worker of the app."""
    definitions = {w.id: definition_of(workflow_class(w)) for w in client.workflows}
    runner: Any = UnsandboxedWorkflowRunner()
    if sandboxed:
        ours = SteporalWorkflowRunner(OwnCode(w.handler for w in client.workflows), beside_ours(None))
        runner = ArityRunner(ours)
        for definition in definitions.values():
            runner.prepare_workflow(definition)
    return Surroundings(runner, definitions, client.task_queue, asyncio.new_event_loop())


def run(scenario: Scenario, plan: Plan | None = None, *, sandboxed: bool = False, kept: Kept | None = None) -> Outcome:
    """Run a scenario, interrupted as planned.

    Args:
        scenario: The program, and what happens around it.
        plan: What is done to the run.
        sandboxed: Whether it runs in the sandbox.
        kept: What it begins with, as it runs another run again from a step on.
    """
    plan = plan or Plan()
    service = Service(surroundings(sandboxed), client, Interrupted(plan), START + (_LATER if kept else 0))
    data: Any = {"program": to_data(scenario.body), "faults": [list(fault) for fault in plan.faults]}
    id = "again" if kept else "started"
    origin = {"type": "event", "id": id, "name": "start", "ts": service.began // 10**6, "listened": False}
    workflow, arguments = "parks" if plan.parks else "stays", [data, origin, *([kept.argument] if kept else [])]
    service.start(workflow, id, arguments, is_rerun=kept is not None)
    for arrival in scenario.arrivals:
        service.at(service.began + int(arrival.at * SECOND), _arriving(service, arrival))
    ended, problem = None, ""
    try:
        with in_memory():
            ended = service.run()
    except (Stuck, NotDeterministic, TaskFailed, NotRecovered, Endless) as err:
        problem = f"{type(err).__name__}: {err}"
    recorder = service.recorder
    return Outcome(scenario, ended, problem, recorder.begun, recorder, service.moments, service)


class Endless(BaseException):
    """A workflow task computes for ever: no exception that a body could catch."""


@contextmanager
def in_memory() -> Iterator[None]:
    """Run in this thread without a running event loop, without logs, and with a limit on the time spent computing."""
    with _no_loop(), _limited(), _silent():
        yield


@contextmanager
def _silent() -> Iterator[None]:
    """While a run goes on, nothing is logged."""
    loggers = [logging.getLogger(name) for name in ("temporalio", "steporal", "asyncio")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def _no_loop() -> Iterator[None]:
    """While a run goes on, its own event loop is the running one, or none."""
    before = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(before)


@contextmanager
def _limited() -> Iterator[None]:
    """Ends what computes for too long, by the clock of the process: its own time, not that of others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise Endless(f"the run has computed for {_MOST_SECONDS} seconds")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _arriving(service: Service, arrival: Arrival) -> Any:
    def arrive() -> None:
        service.moments.append(service.now)
        if arrival.kind == "cancel":
            service.cancel()
        elif arrival.kind == "signal":
            service.world.send(arrival.name, arrival.number)
        else:
            ts = service.now // 10**6
            event = {
                "name": arrival.name,
                "data": {"n": arrival.number},
                "id": f"event {arrival.number}",
                "ts": ts,
                "v": None,
            }
            service.world.publish(event)

    return arrive
