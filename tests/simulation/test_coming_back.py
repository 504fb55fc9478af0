"""A body that comes back is the same run: random programs, interrupted at random moments, in memory.

``python -m tests.simulation --minutes 60`` searches for longer. What it finds belongs into ``seeds.json``.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from steporal.runtime.compiled import workflow_class

from .app import client
from .interruptions import KINDS, plan_of
from .programs import from_data, scenario_of
from .running import run
from .search import Found, Tried, look, search, shrunk, try_seed

SECONDS = float(os.environ.get("SIMULATION_SECONDS", "10"))
"""How long fresh seeds are tried."""

FIRST = int(os.environ.get("SIMULATION_SEED") or random.randrange(10**9))
"""The first of them."""

KNOWN: list[Any] = json.loads((Path(__file__).parent / "seeds.json").read_text())
"""What once failed, and how."""


@pytest.mark.parametrize("known", KNOWN, ids=[f"{n}-{each['why'].partition(':')[0]}" for n, each in enumerate(KNOWN)])
def test_what_once_failed_comes_back_the_same(known: Any) -> None:
    scenario, plan = from_data(known["scenario"]), from_data(known["plan"])
    assert run(scenario).ended is not None
    found = look(scenario, plan)
    assert found is None, f"\n{found}"


def test_random_programs_come_back_the_same_however_they_are_interrupted() -> None:
    until = time.monotonic() + SECONDS
    tried = search(FIRST, lambda tried: bool(tried.found) or time.monotonic() > until)
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
