"""What the oracle sees, and what it lets pass."""

from __future__ import annotations

from itertools import count

from .cluster import Killed
from .effects import Effect, Phase
from .oracle import bad_drains, judge
from .stage import Ended, Expected

NOON = 1_800_000_000.0

_numbers = count(1)


def row(phase: Phase, at: float, *, step: str = "charge", pid: int = 1, is_local: bool = False) -> Effect:
    return Effect(next(_numbers), NOON + at, "order/1", "run", "order", step, 1, is_local, pid, phase, "")


def happens(at: float, *, step: str = "charge", pid: int = 1, is_local: bool = False) -> list[Effect]:
    return [row(phase, at, step=step, pid=pid, is_local=is_local) for phase in ("begin", "end")]


def ended(*steps: str) -> list[Expected]:
    return [Expected("order/1", frozenset(steps), Ended("completed"))]


def kill(at: float, *, kind: str = "worker SIGKILL", name: str = "orders-1", pid: int = 1) -> Killed:
    return Killed(kind, name, pid, NOON + at, NOON + at + 3)


def test_a_step_that_happened_once_is_as_it_should_be() -> None:
    verdict = judge(happens(0), ended("charge"), [])
    assert (verdict.happened, verdict.lost, verdict.repeated) == (1, [], [])


def test_a_step_of_a_run_that_has_ended_is_lost_if_it_never_ended() -> None:
    assert judge([row("begin", 0)], ended("charge"), []).lost == ["step 'charge' of order/1"]


def test_a_step_of_a_run_that_goes_on_is_not_lost() -> None:
    assert judge([], [Expected("order/1", frozenset({"charge"}))], []).lost == []


def test_attempts_that_neither_ended_nor_raised_were_interrupted() -> None:
    rows = [row("begin", 0), row("begin", 1), row("failed", 2), *happens(3)]
    verdict = judge(rows, [], [])
    assert (verdict.begun, verdict.interrupted) == (3, 1)


def test_a_step_that_happened_twice_without_a_kill_is_found() -> None:
    verdict = judge([*happens(0), *happens(30, pid=2)], ended("charge"), [])
    assert [repeated.effect.at for repeated in verdict.unexplained] == [NOON]


def test_a_local_step_happens_again_with_a_workflow_task_that_temporal_repeats() -> None:
    for is_local, unexplained in ((True, 0), (False, 1)):
        twice = [*happens(0, is_local=is_local), *happens(30, is_local=is_local)]
        assert len(judge(twice, ended("charge"), [], {"run"}).unexplained) == unexplained
        assert len(judge(twice, ended("charge"), [], {"another run"}).unexplained) == 1


def test_activities_that_body_attempts_made_for_one_step_are_that_step() -> None:
    assert len(judge([*happens(0), *happens(30, step="charge#2")], ended("charge"), []).unexplained) == 1


def test_a_kill_of_its_worker_explains_a_step_that_happened_twice() -> None:
    verdict = judge([*happens(0), *happens(30, pid=2)], ended("charge"), [kill(0.1)])
    assert [repeated.because for repeated in verdict.repeated] == ["worker SIGKILL"]


def test_a_kill_of_another_worker_or_long_after_explains_nothing() -> None:
    kills = [kill(0.1, pid=2), kill(20)]
    assert len(judge([*happens(0), *happens(30, pid=3)], ended("charge"), kills).unexplained) == 1


def test_a_kill_of_the_server_explains_it_until_calls_succeed_again() -> None:
    kills = [kill(0.5, kind="server SIGKILL", name="server", pid=9)]
    twice = [*happens(0), *happens(30)]
    assert judge(twice, [], kills).unexplained == []
    assert len(judge([*happens(10), *happens(30)], [], kills).unexplained) == 1


def test_a_drained_worker_finishes_its_steps_but_for_local_ones() -> None:
    drained = [kill(0.5, kind="worker SIGTERM")]
    assert len(judge([*happens(0), *happens(30, pid=2)], [], drained).unexplained) == 1
    assert judge([*happens(0, is_local=True), *happens(30, pid=2, is_local=True)], [], drained).unexplained == []


def test_a_drain_that_fails_is_found_unless_the_server_was_away() -> None:
    drain, server = kill(0, kind="worker SIGTERM"), kill(1, kind="server SIGKILL", name="server", pid=9)
    assert bad_drains([(drain, 1)], [drain]) == ["orders-1 was drained, and ended with status 1"]
    assert bad_drains([(drain, 1)], [drain, server]) == []
    assert bad_drains([(drain, 0)], [drain]) == []
