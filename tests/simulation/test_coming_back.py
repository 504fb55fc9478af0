"""A body that comes back is the same run: random programs, interrupted at random moments, in memory.

``python -m tests.simulation --minutes 60`` searches for longer. What it finds belongs into ``seeds.json``.
"""

from __future__ import annotations

import gc
import json
import os
import random
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from steporal.runtime import journal
from steporal.runtime.branches import BRANCH, Branch
from steporal.runtime.compiled import workflow_class

from . import rerunning, running
from .app import client
from .interruptions import KINDS, Interrupted, Plan, plan_of
from .programs import (
    Arrival,
    AsCompleted,
    Draw,
    Finally,
    Gather,
    Group,
    Invoke,
    Limit,
    Listen,
    Pause,
    Scenario,
    Seq,
    Sleep,
    Step,
    Throw,
    Try,
    WaitEvent,
    WaitSignal,
    from_data,
    scenario_of,
    to_data,
)
from .running import SECOND, run
from .search import Found, Tried, look, search, shrunk, try_seed
from .service import Service, Uninterrupted

pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
"""A run that is thrown away leaves what its body had called and not awaited yet."""


@pytest.fixture(autouse=True)
def leave_nothing() -> Iterator[None]:
    """What a test leaves is collected in it, lest another test is warned of it."""
    yield
    gc.collect()


SECONDS = float(os.environ.get("SIMULATION_SECONDS", "20"))
"""How long seeds are tried, in seconds of the processor's time: a busy machine tries as many."""

FIRST = int(os.environ.get("SIMULATION_SEED") or 20261129)
"""The first of them: the same in each run of the tests, as a new fault is for ``make simulation`` to find."""

KNOWN: list[Any] = json.loads((Path(__file__).parent / "seeds.json").read_text())
"""What once failed, and how."""


@pytest.mark.parametrize("known", KNOWN, ids=[f"{n}-{each['why'].partition(':')[0]}" for n, each in enumerate(KNOWN)])
def test_what_once_failed_comes_back_the_same(known: Any) -> None:
    scenario, plan = from_data(known["scenario"]), from_data(known["plan"])
    assert run(scenario).ended is not None
    found = look(scenario, plan)
    assert found is None, f"\n{found}"


@pytest.mark.takes_long
@pytest.mark.timeout(120 + 20 * SECONDS)
def test_random_programs_come_back_the_same_however_they_are_interrupted() -> None:
    until = time.process_time() + SECONDS
    tried = search(FIRST, lambda tried: bool(tried.found) or time.process_time() > until)
    print(tried)
    for seed, found in tried.found.items():
        pytest.fail(_described(seed, found))
    assert tried.compared


def test_random_programs_come_back_the_same_in_the_sandbox() -> None:
    tried = Tried()
    for seed in range(FIRST, FIRST + 3):
        if found := try_seed(seed, tried, plans=3, sandboxed=True):
            pytest.fail(_described(seed, found))


def _described(seed: int, found: Found) -> str:
    less = shrunk(found, 20)
    return (
        f"seed {seed}: {found.why}\n{less}\n"
        f"again: python -m tests.simulation --seed {seed} --seeds 1\n"
        f"for seeds.json: {json.dumps(less.data())}"
    )


async def test_the_histories_of_the_simulation_replay_in_temporals_core() -> None:
    replayer = Replayer(
        workflows=[workflow_class(workflow) for workflow in client.workflows],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    for seed in range(FIRST, FIRST + 4):
        scenario, chance = scenario_of(seed), random.Random(seed)
        outcome = run(scenario)
        outcomes = [outcome]
        if outcome.ended is not None:
            plans = (plan_of(chance, outcome.ended.at, outcome.service.tasks, (kind,)) for kind in KINDS)
            outcomes += [run(scenario, plan) for plan in plans]
        for outcome in outcomes:
            for execution in outcome.service.executions:
                history = WorkflowHistory(outcome.service.workflow_id, execution.history.events)
                await replayer.replay_workflow(history)


def sleep(seconds: float) -> Sleep:
    return Sleep(f"sleep {seconds}", seconds)


def step(id: str, seconds: float) -> Step:
    return Step(id, "function", (seconds,))


AROUND_PARKING = [1 + number / 2_000 for number in range(24)]
"""Moments around the one in which a run parks that waits for a child from its start on."""


@pytest.mark.parametrize("kind", ["event", "cancel"])
def test_what_comes_in_the_moment_of_parking_is_not_lost(kind: Any) -> None:
    program = Gather((Invoke("invoke", 60.0), Seq((WaitEvent("wait", "paid", 500.0), step("ship", 20.0)))))
    tasks = set()
    for at in AROUND_PARKING:
        scenario = Scenario(program, (Arrival(kind, at, "paid", 1),))
        found = look(scenario, Plan(parks=True))
        assert found is None, f"at {at}:\n{found}"
        tasks.add(run(scenario, Plan(parks=True)).service.tasks)
    assert len(tasks) > 1, "no moment was that of parking"


def test_activities_that_begin_again_have_ids_that_no_other_step_has() -> None:
    scenario = Scenario(Gather((step("a", 100.0), Seq((step("b", 10.0), step("a#2", 50.0))))))
    found = look(scenario, Plan(resets=(5.0,)))  # the first step is in flight, and begins again as its second activity
    assert found is None, f"\n{found}"


@pytest.mark.parametrize("kind", [Pause, sleep])
def test_what_was_over_while_the_run_was_held_comes_in_the_order_in_which_it_was_due(kind: Any) -> None:
    scenario = Scenario(Gather(tuple(kind(seconds) for seconds in (30.0, 10.0, 20.0))))
    seen = run(scenario, Plan(asks=((2.0, 60.0),))).seen
    assert [entry[0] for entry in seen[:3]] == ["p.1", "p.2", "p.0"]


class OnAnotherHost(Interrupted):
    """Each execution runs on a host whose clock is some seconds behind."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._executions = 1

    def before_task(self, service: Service) -> None:
        super().before_task(service)
        if len(service.executions) > self._executions:
            self._executions = len(service.executions)
            service.now -= 5 * SECOND


def test_ctx_now_never_goes_back_though_the_clock_of_the_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "Interrupted", OnAnotherHost)
    draws = [item for number in range(4) for item in (step(f"step {number}", 1.0), Draw("now"))]
    outcome = run(Scenario(Seq(tuple(draws))), Plan(suggestions=(8, 8)))
    assert outcome.ended is not None, outcome.problem
    assert len(outcome.service.executions) == 3
    drawn = [entry[2] for entry in outcome.seen if entry[1] == "now"]
    assert drawn == sorted(drawn)
    assert not [found for found in outcome.recorder.pasts if found.seen != outcome.seen[: len(found.seen)]]


def two_attempts(*branches: Any) -> tuple[list[Any], list[Any]]:
    """What two attempts of a body see, the first of which ends as it reads the time the third time."""
    program = Seq((step("first", 1.0), Draw("now"), Gather((*branches, Seq((Draw("now"), Draw("now")))))))
    points = 7 + len(branches)
    outcome = run(Scenario(program), Plan(faults=((0, 1, points),)))
    assert outcome.ended is not None, outcome.problem
    (past,) = outcome.recorder.pasts
    return past.seen, outcome.seen[: len(past.seen)]


def test_an_attempt_after_one_that_had_begun_nothing_reads_the_time_anew() -> None:
    first, second = two_attempts()
    assert [entry[0] for entry in first] == ["p.0", "p.1", "p.2.0.0"]
    assert [entry[0] for entry in second] == [entry[0] for entry in first]
    assert second[1][2] > first[1][2]


def test_an_attempt_after_one_that_had_begun_a_step_has_its_time() -> None:
    first, second = two_attempts(step("second", 50.0))
    assert [entry[0] for entry in first] == ["p.0", "p.1", "p.2.1.0"]
    assert second == first


class Away(Interrupted):
    """No worker is up for half a minute, so that its next task has all that has come."""

    after = 5.0
    """From when on, in seconds since the run's start, the next task of the run has no worker."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._was_away = False

    def before_task(self, service: Service) -> None:
        super().before_task(service)
        if service.elapsed > self.after and not self._was_away:
            self._was_away = True
            service.wait(30 * SECOND)


KINDS_OF_WAITS: list[Callable[[float], tuple[Any, Arrival | None]]] = [
    lambda at: (Pause(at), None),
    lambda at: (sleep(at), None),
    lambda at: (step("step", at), None),
    lambda at: (Invoke("invoke", at), None),
    lambda at: (WaitEvent("event", "paid", 500.0), Arrival("event", at, "paid", 1)),
    lambda at: (WaitEvent("late event", "shipped", at), None),
    lambda at: (WaitSignal("signal", "go", 500.0), Arrival("signal", at, "go", 2)),
    lambda at: (WaitSignal("late signal", "stop", at), None),
]


@pytest.mark.parametrize("is_cancelled", [False, True])
@pytest.mark.parametrize("number", range(12))
def test_what_came_while_no_worker_was_up_comes_again_in_the_same_order(
    number: int, is_cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "Interrupted", Away)
    moments = random.Random(number).sample(range(10, 30), len(KINDS_OF_WAITS))
    waits = [kind(float(at)) for kind, at in zip(KINDS_OF_WAITS, moments, strict=True)]
    branches = tuple(Seq((wait, Pause(0.0), step(f"after {n}", 1.0))) for n, (wait, _) in enumerate(waits))
    arrivals = [arrival for _, arrival in waits if arrival is not None]
    if is_cancelled:
        arrivals.append(Arrival("cancel", 20.5, "", 0))
    program = Finally(Gather((Pause(6.0), sleep(200.0), *branches)), sleep(300.0))
    outcome = run(Scenario(program, tuple(arrivals)), Plan(recoveries=(60.0,)))
    assert outcome.ended is not None, outcome.problem
    pasts = [past.seen for past in outcome.recorder.pasts]
    assert max(map(len, pasts)) >= len(waits)
    assert pasts == [outcome.seen[: len(past)] for past in pasts]


@pytest.mark.parametrize("kind", [Pause, sleep])
def test_a_rerun_has_what_was_left_of_each_wait(kind: Any) -> None:
    before = run(Scenario(Gather((kind(30.0), Seq((step("first", 10.0), step("second", 5.0)))))))
    kept = rerunning.kept(before.service, -1)
    assert kept is not None and kept.step == "second"
    seen = run(before.scenario, Plan(rerun=1), kept=kept).seen
    assert [entry[0] for entry in seen] == ["p.1.0", "p.1.1", "p.0"]
    assert [entry[0] for entry in before.seen] == ["p.1.0", "p.1.1", "p.0"]


@pytest.mark.parametrize("kind", [Pause, sleep])
def test_a_wait_that_is_over_when_a_new_attempt_begins_it_is_in_the_history(kind: Any) -> None:
    waits = [Seq((kind(milliseconds / 1000), Draw("now"))) for milliseconds in range(1, 8)]
    program = Seq((step("first", 1.0), Gather((sleep(100.0), *waits, Seq((Draw("now"), Draw("now")))))))
    outcome = run(Scenario(program), Plan(faults=((0, 1, 21),), recoveries=(60.0,)))
    assert outcome.ended is not None, outcome.problem
    attempt, recovered = (past.seen for past in outcome.recorder.pasts)
    assert [entry[0] for entry in attempt] == ["p.0", "p.1.8.0"]
    assert len(recovered) > 2 * len(waits)
    assert recovered == outcome.seen[: len(recovered)]


class AwayAsItParks(Away):
    """No worker is up from the moment on in which the run would park."""

    after = 1.0


@pytest.mark.parametrize("with_child", [False, True])
def test_a_run_that_was_cancelled_while_no_worker_was_up_to_park_it_is_cancelled(
    with_child: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "Interrupted", AwayAsItParks)
    waits = [Invoke("invoke", 60.0)] if with_child else []
    program = Finally(Gather((sleep(100.0), *waits)), step("clean up", 1.0))
    outcome = run(Scenario(program, (Arrival("cancel", 20.0, "", 0),)), Plan(parks=True))
    assert outcome.ended is not None, outcome.problem
    assert outcome.ended.kind == "cancelled"
    assert outcome.begun["p.f"] == 1
    assert len(outcome.service.executions) == 1


@pytest.mark.parametrize("before", range(8))
def test_the_tasks_of_a_group_that_fails_are_cancelled_in_the_same_order(before: int) -> None:
    fails = Seq((step("fails", 2.0), Throw()))
    group = Group((fails, *(step(f"cancelled {number}", 50.0) for number in range(3))))
    program = Seq((*(step(f"before {number}", 1.0) for number in range(before)), Try(group, sleep(100.0))))
    found = look(Scenario(program), Plan(parks=True, suggestions=(12,)))
    assert found is None, f"\n{found}"


def test_temporals_own_clock_and_random_numbers_are_the_bodys() -> None:
    program = Seq((Draw("temporal"), step("first", 10.0), Draw("temporal"), sleep(100.0), Draw("temporal")))
    outcome = run(Scenario(program), Plan(parks=True, recoveries=(60.0,)))
    assert outcome.ended is not None, outcome.problem
    assert len(outcome.recorder.pasts) > 1
    for past in outcome.recorder.pasts:
        assert past.seen == outcome.seen[: len(past.seen)]


def test_a_run_parks_after_a_timeout_that_was_not_reached() -> None:
    program = Seq((Limit(500.0, step("in time", 10.0), "timeout"), sleep(100.0)))
    outcome = run(Scenario(program), Plan(parks=True))
    assert len(outcome.service.executions) == 2
    assert outcome.ended is not None
    assert outcome.ended.at < 120, "a timer that is cancelled wakes no run"


def test_a_step_in_wait_for_is_in_the_branch_that_calls_it() -> None:
    outcome = run(Scenario(Seq((step("a", 1.0), Limit(500.0, step("a", 1.0), "wait_for")))))
    scheduled = [e.activity_task_scheduled_event_attributes for e in outcome.service.execution.history.events]
    assert [each.activity_id for each in scheduled if each.activity_id] == ["a", "a:1"]


def test_what_is_left_of_an_attempt_that_has_ended_starts_no_timers() -> None:
    left = Finally(sleep(100.0), Pause(50.0))
    program = Seq((step("first", 1.0), Gather((left, Seq((step("second", 1.0), Draw("random"), Draw("random")))))))
    found = look(Scenario(program), Plan(faults=((0, 1, 8),)))
    assert found is None, f"\n{found}"
    outcome = run(Scenario(program), Plan(faults=((0, 1, 8),)))
    summaries = [event.user_metadata.summary.data for event in outcome.service.execution.history.events]
    assert len([text for text in summaries if b"asyncio timer" in text]) == 1


@pytest.mark.parametrize("entries", [1, 3])
def test_random_programs_come_back_the_same_in_parts(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "ENTRIES_PER_TASK", entries)
    tried = Tried()
    for seed in range(FIRST, FIRST + 5):
        if found := try_seed(seed, tried):
            pytest.fail(_described(seed, found))


LATER = (step("later", 5.0), Draw("now"), sleep(200.0))

RECOVERED = {
    "a local step": (Seq((Step("local", "local", (1.0,)), Draw("now"), *LATER)), ()),
    "a wait for a signal that was cancelled": (
        Seq((Limit(20.0, WaitSignal("wait", "go", 500.0), "timeout"), Draw("now"), *LATER)),
        (),
    ),
    **{
        f"an event {milliseconds} ms after the run's start": (
            Seq((Gather((WaitEvent("wait", "paid", 20.0), Listen("listen", "paid", 1, 20.0))), *LATER)),
            (Arrival("event", milliseconds / 1000, "paid", 1),),
        )
        for milliseconds in range(8)
    },
    **{
        f"an event {milliseconds} ms after a listener's wait would end": (
            Seq((Listen("listen", "paid", 2, 20.0), *LATER)),
            (Arrival("event", 20 + milliseconds / 1000, "paid", 1),),
        )
        for milliseconds in range(8)
    },
}


@pytest.mark.parametrize("what", RECOVERED)
def test_a_recovered_body_has_seen_what_it_saw_before(what: str) -> None:
    program, arrivals = RECOVERED[what]
    outcome = run(Scenario(program, arrivals), Plan(recoveries=(60.0,)))
    assert outcome.ended is not None, outcome.problem
    (past,) = outcome.recorder.pasts
    assert past.seen == outcome.seen[: len(past.seen)]


@pytest.mark.parametrize("kind", [Pause, sleep])
def test_a_recovered_body_has_seen_in_order_what_was_over_while_it_was_held(kind: Any) -> None:
    waits = (Seq((kind(seconds), Draw("now"))) for seconds in (30.0, 10.0, 20.0))
    program = Gather((*waits, sleep(300.0)))
    outcome = run(Scenario(program), Plan(asks=((2.0, 60.0),), recoveries=(100.0,)))
    assert outcome.ended is not None, outcome.problem
    past = outcome.recorder.pasts[-1]
    assert len(past.seen) == 6
    assert past.seen == outcome.seen[:6]


def test_a_recovered_body_reads_the_time_that_its_second_attempt_has_read() -> None:
    program = Seq((Draw("now"), step("first", 1.0), Draw("now"), step("second", 1.0), sleep(200.0)))
    outcome = run(Scenario(program), Plan(faults=((0, 1, 5),), recoveries=(60.0,)))
    assert outcome.ended is not None, outcome.problem
    attempt, recovered = (past.seen for past in outcome.recorder.pasts)
    assert len(attempt) == 3 and len(recovered) == 4
    assert recovered[0] == attempt[0]
    assert recovered[2] != attempt[2], "the second attempt has read the time anew"
    assert recovered == outcome.seen[:4]


@pytest.mark.parametrize("plan", [Plan(recoveries=(60.0,)), Plan(parks=True)], ids=["recovered", "parked"])
def test_a_body_that_comes_back_reads_the_attempt_that_it_has_read(plan: Plan) -> None:
    program = Seq((step("first", 1.0), Draw("attempt"), step("second", 1.0), Draw("attempt"), sleep(200.0)))
    outcome = run(Scenario(program), replace(plan, faults=((0, 1, 4),)))
    assert outcome.ended is not None, outcome.problem
    attempt, interrupted = (past.seen for past in outcome.recorder.pasts)
    assert [entry[2] for entry in (attempt[1], interrupted[1], interrupted[3])] == [0, 1, 0]
    assert interrupted == outcome.seen[:4]


WAITS: dict[str, Callable[[str, float], Any]] = {
    "signal": lambda id, seconds: WaitSignal(id, "go", seconds),
    "event": lambda id, seconds: WaitEvent(id, "paid", seconds),
    "invoke": lambda id, seconds: Invoke(id, 60.0, timeout=seconds),
    "listen": lambda id, seconds: Listen(id, "shipped.eu", 1, seconds),
    "sleep": Sleep,
    "pause": lambda id, seconds: Pause(seconds),
    "a limit of a sleep": lambda id, seconds: Limit(seconds, Sleep(id, 100.0), "timeout"),
    "a limit of a signal": lambda id, seconds: Limit(seconds, WaitSignal(id, "stop", 100.0), "timeout"),
    "a limit of an event": lambda id, seconds: Limit(seconds, WaitEvent(id, "gone", 100.0), "wait_for"),
}

HELD_AND_RECOVERED = [
    Plan(asks=((1.029, 30.0),), recoveries=(6.931, 7.472)),
    Plan(asks=((1.029, 6.0),), recoveries=(7.5, 8.0)),
    Plan(asks=((1.029, 30.0),), recoveries=(6.931, 7.472), parks=True),
]


@pytest.mark.parametrize("first", WAITS)
def test_waits_that_were_over_when_a_recovered_body_came_back_end_in_the_order_in_which_they_were_over(
    first: str,
) -> None:
    for second, plan in product(WAITS, HELD_AND_RECOVERED):
        for seconds in ((6.0, 2.0), (2.0, 6.0)):
            waits = WAITS[first]("s1", seconds[0]), WAITS[second]("s0", seconds[1])
            found = look(Scenario(AsCompleted(waits, after=Pause(4.0)), ()), plan)
            assert found is None, f"{first} and {second}: \n{found}"


@pytest.mark.parametrize("first", WAITS)
def test_of_waits_that_are_over_when_a_recovered_body_comes_back_the_one_that_was_over_first_ends_first(
    first: str,
) -> None:
    plan = Plan(checkpoints=((1.029, 30.0),), recoveries=(6.931,))
    for second in WAITS:
        for seconds in ((6.0, 2.0), (2.0, 6.0)):
            waits = WAITS[first]("s1", seconds[0]), WAITS[second]("s0", seconds[1])
            found = look(Scenario(Gather(waits), ()), plan)
            assert found is None, f"{first} and {second}: \n{found}"


class Collected(Uninterrupted):
    """Lets Python collect a run as garbage, where a worker would evict it, while another run has the thread."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def between(self, service: Service) -> None:
        """See base class."""
        if service.execution.cached.instance is None:
            return
        instance = weakref.ref(service.execution.cached.instance)
        service.execution.cached.instance = None
        service.forget(service.execution)
        copy_context().run(self._collect)
        assert instance() is None

    def _collect(self) -> None:
        BRANCH.set(Branch("of another run"))
        gc.collect()
        branch = BRANCH.get()
        self.seen.append(branch.label if branch else "")


def test_a_body_that_python_collects_as_garbage_changes_nothing_of_the_run_that_has_the_thread() -> None:
    """In Python 3.11, a context variable that is set while its context is copied crashes the process."""
    body = Gather((Finally(sleep(20.0), step("late", 1.0)), Limit(30.0, sleep(40.0), "timeout"), step("early", 5.0)))
    collected = Collected()
    service = Service(running.surroundings(), client, collected)
    origin = {"type": "event", "id": "started", "name": "start", "ts": 0, "listened": False}
    service.start("stays", "started", [{"program": to_data(body), "faults": []}, origin])
    with running.in_memory():
        assert service.run().kind == "completed"
    assert len(collected.seen) > 2
    assert set(collected.seen) == {"of another run"}
