"""The seam between the kinds of steps and the attempt of a body that calls them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from temporalio.common import RawValue

from ...closures.calls import Call
from ...observability.run_metrics import StepKind
from ...step import RunOptions
from ...step_calls import StepCalls
from ...types import JSON
from ...wire.memo import Outcome
from ..branches import Branch
from ..run import Run

Perform = Callable[[], Coroutine[Any, Any, Outcome]]


class StepHost(Protocol):
    """An attempt of a body, as a kind of step sees it.

    A step takes its :meth:`key` and checks its arguments while the body calls it, names the call by :meth:`called`, and
    then waits for its :meth:`outcome`, which performs the step unless it has finished before.

    Attributes:
        owner: The run.
        step_calls: The calls of steps that the body has made.
        branch: The branch of the body itself.
    """

    owner: Run
    step_calls: StepCalls
    branch: Branch

    def key(self, step_id: str) -> str:
        """Return the key of a further use of a step's id."""

    def called(self, key: str, call: Call) -> str:
        """Note a call of a step, and return the key under which its result is."""

    def described(self, key: str) -> JSON:
        """Return the description of a step's call, for the argument of its activity."""

    async def outcome(self, key: str, kind: StepKind, start: Perform | None, *, at_once: bool = False) -> Outcome:
        """Wait until the outcome of a step reaches the body."""

    def derived_id(self, key: str, position: int) -> str:
        """Return an id that is the same in each execution of the run."""

    def activity(self, key: str, options: RunOptions, name: str, argument: RawValue) -> Perform:
        """Return what performs an activity, with the options of ``step.run``."""

    def local(self, key: str, name: str, argument: JSON) -> Callable[[], Any]:
        """Return what starts a local activity."""

    async def perform(self, key: str, start: Callable[[], Any], max_attempts: int = 0) -> Outcome:
        """Perform an activity, again while no worker can begin it."""
