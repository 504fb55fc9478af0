"""Looks for a run that an interruption makes another one."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from typing import Any

from . import rerunning
from .effects import Past, result_of
from .interruptions import KINDS, Plan, plan_of
from .programs import Scenario, scenario_of, smaller, to_data, written
from .rerunning import Kept
from .running import SECOND, Outcome, run
from .service import START

APART = 0.4
"""Seconds between two moments of a run, below which an interruption of milliseconds may change what comes first."""

PLANS_PER_SCENARIO = 6
_CLOCK = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """A run that did not come back the same.

    Attributes:
        scenario: The program and what happens around it.
        plan: What was done to it.
        why: In which way it was another one.
        expected: The run without interruptions.
        actual: The run with them.
    """

    scenario: Scenario
    plan: Plan
    why: str
    expected: Outcome = field(repr=False)
    actual: Outcome = field(repr=False)

    def data(self) -> Any:
        """What :func:`again` takes, as JSON."""
        return {"scenario": to_data(self.scenario), "plan": to_data(self.plan), "why": self.why}

    def __str__(self) -> str:
        left = [str(entry) for entry in [*self.expected.seen, self.expected.result]]
        right = [str(entry) for entry in [*self.actual.seen, self.actual.result]]
        traces = [
            f"  {'' if a == b else '>':1} {a:70.70} | {b:70.70}" for a, b in zip_longest(left, right, fillvalue="")
        ]
        return "\n".join(
            [
                f"{self.why}",
                f"interruptions: {self.plan}",
                f"program:\n  {written(self.scenario, '  ')}",
                f"    {'uninterrupted':70} | interrupted",
                *traces,
                f"begun: {_difference(self.expected.begun, self.actual.begun)}",
            ]
        )


def _difference(expected: Counter[str], actual: Counter[str]) -> str:
    labels = [label for label in {**expected, **actual} if expected[label] != actual[label]]
    return ", ".join(f"{label}: {expected[label]} → {actual[label]}" for label in labels) or "the same"


def is_comparable(outcome: Outcome) -> bool:
    """Whether a run without interruptions says what one with them must do: its moments are well apart."""
    assert outcome.ended is not None
    if outcome.scenario.is_crowded:
        return False
    moments = sorted(set(outcome.moments))
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    return all(gap < SECOND // 50 or gap > APART * SECOND for gap in gaps)


def difference(expected: Outcome, actual: Outcome, plan: Plan) -> str | None:
    """In which way an interrupted run is another one; None if it is the same."""
    assert expected.ended is not None
    if actual.ended is None:
        return f"the run did not end: {actual.problem.partition(chr(10))[0]:.500}"
    if exchanged := [entry for entry in actual.seen if "EXCHANGED" in entry]:
        return f"a step got the result of another: {exchanged[0]}"
    may_differ = plan.takes_time or plan.rerun >= 0 or not is_comparable(expected) or actual.recorder.late > APART
    # What is sent in the moment of a loss, or by a new attempt of the body, may find who waits already.
    is_found_early = bool(plan.losses or plan.faults) and "SendSignal" in str(expected.scenario)
    if actual.ended.kind != expected.ended.kind and not ((may_differ or is_found_early) and _is_cancelled(expected)):
        return f"another end: {actual.ended}"
    if way := _other_way(actual):
        return f"the body came back another way: {way}"
    if more := _too_many_effects(actual):
        return f"more effects: {more}"
    if may_differ or is_found_early:
        return None  # it may have taken another way
    if other := _other_effects(expected, actual, plan):
        return f"other effects: {other}"
    if actual.result != expected.result:
        return f"another result: {expected.result!s:.200} became {actual.result!s:.200}"
    for before, after in _side_by_side(_heard_at_once(expected.seen), _heard_at_once(actual.seen)):
        if not _is_same(before, after, ignore_clock=bool(plan.faults)):
            return f"another trace: {before} became {after}"
    return None


def _heard_at_once(seen: list[Any]) -> list[Any]:
    """What a body has seen, with waits that have received one and the same event in no order: topics are told apart."""
    seen = list(seen)
    for position in range(1, len(seen)):
        before, entry = seen[position - 1 : position + 1]
        if before[1:] == entry[1:] and entry[1] == "event" and entry[2] is not None and entry[0] < before[0]:
            seen[position - 1 : position + 1] = [entry, before]
    return seen


def _side_by_side(before: list[Any], after: list[Any]) -> Iterator[tuple[list[Any], list[Any]]]:
    return zip_longest(before, after, fillvalue=[])


def _kind(why: str) -> str:
    """In which way a run is another one, without what is another."""
    return why.partition(":")[0]


def _is_same(before: list[Any], after: list[Any], *, ignore_clock: bool) -> bool:
    if before[1:2] == ["now"] == after[1:2] and before[0] == after[0]:
        return ignore_clock or abs(before[2] - after[2]) < _CLOCK
    return before == after


def _other_way(actual: Outcome) -> str | None:
    """Where a body that came back saw something else than before it was interrupted; None if it did not."""
    for past in actual.recorder.pasts:
        for before, after in _side_by_side(past.seen, actual.seen[: len(past.seen)]):
            is_time = past.has_other_clock and before[1:2] == ["now"] == after[1:2]
            if before != after and not is_time:
                return f"{past.why}; {before} became {after}"
    return None


def _too_many_effects(actual: Outcome) -> str | None:
    recorder = actual.recorder
    for label, count in recorder.begun.items():
        if count > recorder.most[label] * (1 + recorder.excused[label]):
            return f"{label} has begun {count} times"
    return None


def _other_effects(expected: Outcome, actual: Outcome, plan: Plan) -> str | None:
    for label in sorted({**expected.begun, **actual.begun}):
        least, most = expected.begun[label], expected.begun[label] + actual.recorder.excused[label]
        if least == 0 and plan.faults:
            most = 1  # left to itself by the body: begun by its first attempt, and by the last one as the run ended
        if not least <= actual.begun[label] <= most:
            return f"{label} has begun {actual.begun[label]} times, and {least} times without interruptions"
    return None


def look(scenario: Scenario, plan: Plan, *, sandboxed: bool = False) -> Found | None:
    """Whether a scenario becomes another by what is planned; None if it does not, or cannot be compared."""
    expected = run(scenario, sandboxed=sandboxed)
    if (why := _does_not_end(expected)) is not None:
        return Found(scenario, Plan(), why, expected, expected)
    if expected.ended is None:
        return None
    actual, why = _interrupted(expected, plan, sandboxed=sandboxed)
    return None if why is None else Found(scenario, plan, why, expected, actual)


def _does_not_end(outcome: Outcome) -> str | None:
    """Why a run without interruptions does not end as it should: its program catches whatever it raises itself."""
    if outcome.ended is None:
        # A program may wait for ever.
        is_its_own = outcome.problem.startswith("Stuck: nothing")
        return None if is_its_own else f"the run did not end: {outcome.problem.partition(chr(10))[0]:.500}"
    if outcome.ended.kind == "completed" or _is_cancelled(outcome):
        return None
    return f"the run fails: {outcome.ended}"


def _is_cancelled(outcome: Outcome, before: float = math.inf) -> bool:
    """Whether a run is cancelled, which a rerun of it is not: it may take another way from there on."""
    return any(arrival.kind == "cancel" and arrival.at <= before for arrival in outcome.scenario.arrivals)


def _interrupted(expected: Outcome, plan: Plan, *, sandboxed: bool) -> tuple[Outcome, str | None]:
    """The same scenario, interrupted, and in which way that run is another one."""
    kept = rerunning.kept(expected.service, plan.rerun) if plan.rerun >= 0 else None
    actual = run(expected.scenario, plan, sandboxed=sandboxed, kept=kept)
    why = difference(expected, actual, plan)
    if why is None and kept is not None and not _is_cancelled(expected, before=kept.began):
        why = _other_rerun(expected, actual, kept)
    return actual, why


def _other_rerun(expected: Outcome, actual: Outcome, kept: Kept) -> str | None:
    """Where a run that runs another one again went another way before the step from which on it does so."""
    seen = expected.recorder.last
    assert seen is not None
    before = [entry for entry, at in zip(seen, seen.times, strict=True) if at - START / SECOND < kept.began - APART]
    actual.recorder.pasts.append(Past(f"a rerun from step {kept.step!r}", before, has_other_clock=True))
    if way := _other_way(actual):
        return f"the body came back another way: {way}"
    for label in (entry[0] for entry in before if entry[1:] == [result_of(entry[0])]):
        if actual.begun[label]:
            return f"more effects: {label} has begun again"
    return None


def shrunk(found: Found, seconds: float = 20) -> Found:
    """A smaller scenario and plan that still fail."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for scenario, plan in _smaller(found):
            if time.monotonic() > until:
                return found
            less = look(scenario, plan)
            if less is not None and _kind(less.why) == _kind(found.why):
                found = less
                break
        else:
            return found
    return found


def _smaller(found: Found) -> Iterator[tuple[Scenario, Plan]]:
    for plan in found.plan.smaller():
        yield found.scenario, plan
    for scenario in smaller(found.scenario):
        yield scenario, found.plan


@dataclass(slots=True)
class Tried:
    """What a search has done.

    Attributes:
        seeds: How many seeds it has tried.
        compared: How many programs could be compared.
        runs: How many runs there were.
        tasks: How many workflow tasks those took.
        kinds: How many runs each kind of interruption was in.
        statements: How often each kind of statement was in a program.
        executions: How many executions there were.
        found: What was found, by seed.
    """

    seeds: int = 0
    compared: int = 0
    runs: int = 0
    tasks: int = 0
    executions: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    statements: Counter[str] = field(default_factory=Counter)
    found: dict[int, Found] = field(default_factory=dict)

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()))
        statements = ", ".join(f"{kind} {count}" for kind, count in sorted(self.statements.items()))
        return (
            f"{self.seeds} seeds, {self.compared} programs compared, {self.runs} runs of {self.executions} executions "
            f"with {self.tasks} workflow tasks; interrupted by {kinds}; statements: {statements}; "
            f"{len(self.found)} found"
        )


def try_seed(
    seed: int, tried: Tried, kinds: tuple[str, ...] = KINDS, plans: int = PLANS_PER_SCENARIO, *, sandboxed: bool = False
) -> Found | None:
    """Try the scenario of a seed with plans of the same seed; the first that fails."""
    scenario = scenario_of(seed)
    tried.seeds += 1
    expected = run(scenario, sandboxed=sandboxed)
    _count(tried, expected)
    if (why := _does_not_end(expected)) is not None:
        return Found(scenario, Plan(), why, expected, expected)
    if expected.ended is None:  # it waits for ever, which is the program's fault
        return None
    tried.compared += is_comparable(expected)
    _count_statements(tried, to_data(scenario))
    chance = random.Random(f"plans of {seed}")
    for _ in range(plans):
        assert expected.ended is not None
        plan = plan_of(chance, expected.ended.at, expected.service.tasks, kinds)
        actual, why = _interrupted(expected, plan, sandboxed=sandboxed)
        _count(tried, actual)
        tried.kinds.update(kind for kind in KINDS if getattr(plan, kind) not in (False, (), -1))
        if why is not None:
            return Found(scenario, plan, why, expected, actual)
    return None


def _count(tried: Tried, outcome: Outcome) -> None:
    tried.runs += 1
    tried.tasks += outcome.service.tasks
    tried.executions += len(outcome.service.executions)


def _count_statements(tried: Tried, data: Any) -> None:
    if isinstance(data, dict):
        tried.statements[data["is"]] += 1
        for value in data.values():
            _count_statements(tried, value)
    elif isinstance(data, list):
        for item in data:
            _count_statements(tried, item)


def search(
    first: int,
    is_over: Callable[[Tried], bool],
    kinds: tuple[str, ...] = KINDS,
    on_found: Callable[[int, Found], None] = lambda seed, found: None,
) -> Tried:
    """Try one seed after the other."""
    tried = Tried()
    seed = first
    while not is_over(tried):
        if (found := try_seed(seed, tried, kinds)) is not None:
            tried.found[seed] = found
            on_found(seed, found)
        seed += 1
    return tried
