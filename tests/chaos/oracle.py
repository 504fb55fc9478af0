"""What must be true of the effects that steps had, whatever was killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field

import temporalio.client
from temporalio.api.enums.v1 import EventType

from .cluster import Killed
from .effects import Effect
from .stage import Expected

SYSTEM = "steporal."

_ANSWER_SECONDS = 2.0
"""How long after its end a step's answer may be on the way to the server."""

_TASK_SECONDS = 12.0
"""The same for a local step, whose answer goes with the workflow task, which may take Temporal's 10 seconds."""

_REPEATED_TASK = (EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT, EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED)

_SETTLE_SECONDS = 5.0
"""How long after a start of the server calls may still fail."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """A step that has happened once more than it should.

    Attributes:
        effect: The end of the time too many.
        because: Which kill has lost its answer, or what else; None if nothing has.
    """

    effect: Effect
    because: str | None


@dataclass(slots=True)
class Verdict:
    """What became of the steps.

    Attributes:
        happened: How many steps have happened at least once.
        begun: How many attempts of step functions have begun.
        interrupted: How many of them neither ended nor raised.
        lost: The steps of runs that have ended that have not happened, in words.
        repeated: The ends of steps beyond the first.
    """

    happened: int = 0
    begun: int = 0
    interrupted: int = 0
    lost: list[str] = field(default_factory=list)
    repeated: list[Repeated] = field(default_factory=list)

    @property
    def unexplained(self) -> list[Repeated]:
        """The repeated ones that nothing explains."""
        return [repeated for repeated in self.repeated if repeated.because is None]


def judge(
    effects: Iterable[Effect], runs: Iterable[Expected], killed: Sequence[Killed], retried: Set[str] = frozenset()
) -> Verdict:
    """Compare what has happened with what should have.

    Args:
        effects: What has happened.
        runs: What should have.
        killed: What was killed.
        retried: The executions that :func:`repeating` has found.
    """
    verdict = Verdict()
    ends: dict[tuple[str, str], list[Effect]] = {}
    for effect in effects:
        match effect.phase:
            case "begin":
                verdict.begun += 1
                verdict.interrupted += 1
            case "failed":
                verdict.interrupted -= 1
            case "end":
                verdict.interrupted -= 1
                ends.setdefault((effect.workflow_id, step_of(effect)), []).append(effect)
    verdict.happened = len(ends)
    for run in runs:
        if run.ended is not None:
            missing = sorted(step for step in run.steps if (run.workflow_id, step) not in ends)
            verdict.lost += [f"step {step!r} of {run.workflow_id}" for step in missing]
    for times in ends.values():
        for effect in times[:-1]:
            because = explanation(effect, killed)
            if because is None and effect.is_local and effect.run_id in retried:
                because = "a workflow task that Temporal repeated"
            verdict.repeated.append(Repeated(effect, because))
    return verdict


async def repeating(temporal: temporalio.client.Client, effects: Iterable[Effect]) -> set[str]:
    """Executions whose local steps have happened twice, and of which Temporal has repeated a workflow task."""
    ends = [effect for effect in effects if effect.phase == "end" and effect.is_local]
    times = Counter((effect.workflow_id, step_of(effect)) for effect in ends)
    runs = {(effect.workflow_id, effect.run_id) for effect in ends if times[effect.workflow_id, step_of(effect)] > 1}
    found = set()
    for workflow_id, run_id in runs:
        history = await temporal.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        if any(event.event_type in _REPEATED_TASK for event in history.events):
            found.add(run_id)
    return found


def step_of(effect: Effect) -> str:
    """The key of a step; the activities that body attempts have made for one are ``key``, ``key#2``, …"""
    return effect.step.partition("#")[0]


def explanation(effect: Effect, killed: Sequence[Killed]) -> str | None:
    """The kill by which the answer of a step that happened may not have reached Temporal; None if there is none."""
    on_the_way = _TASK_SECONDS if effect.is_local else _ANSWER_SECONDS
    for kill in killed:
        if kill.name == "server":
            if kill.at - on_the_way <= effect.at <= kill.back + _SETTLE_SECONDS:
                return kill.kind
        # A drained worker finishes and tells the steps that it has begun, but may not finish a workflow task.
        elif (
            kill.pid == effect.pid and kill.at - on_the_way <= effect.at and ("SIGKILL" in kill.kind or effect.is_local)
        ):
            return kill.kind
    return None


def bad_drains(drained: Iterable[tuple[Killed, int]], killed: Sequence[Killed]) -> list[str]:
    """Workers that did not end well when they were drained, while the server was there, in words."""
    return [
        f"{drain.name} was drained, and ended with status {status}"
        for drain, status in drained
        if status != 0
        and not any(kill.name in ("server", drain.name) and _overlap(kill, drain) for kill in killed if kill != drain)
    ]


def _overlap(one: Killed, other: Killed) -> bool:
    return one.at <= other.back and other.at <= one.back + _SETTLE_SECONDS


async def strangers(temporal: temporalio.client.Client, expected: Iterable[str]) -> tuple[list[str], int]:
    """Runs that nobody has asked for, and those that were started twice, in words; and how often runs have parked."""
    seen: dict[str, int] = {}
    parked = 0
    async for run in temporal.list_workflows(f'NOT WorkflowType STARTS_WITH "{SYSTEM}"'):
        continues = run.status is temporalio.client.WorkflowExecutionStatus.CONTINUED_AS_NEW
        parked += continues
        seen[run.id] = seen.get(run.id, 0) + (not continues)
    found = [f"{id} was not asked for" for id in sorted(seen.keys() - set(expected))]
    found += [f"{id} was started {count} times" for id, count in sorted(seen.items()) if count > 1]
    return found, parked
