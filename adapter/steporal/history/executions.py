"""Executions of a run, each with the facts of its history, from the first that still exists to the last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from .facts import (
    ActivityScheduled,
    ChildInitiated,
    ExecutionStarted,
    Fact,
    LocalActivity,
    MarkerRecorded,
    Signalled,
    TaskCompleted,
    TaskFailed,
    TaskStarted,
)
from .reading import FactReader

MAX_EXECUTIONS = 50
"""Maximum number of executions that are read; the first of them contains the results of earlier steps."""


@dataclass(frozen=True, slots=True)
class Execution:
    """Execution of a run.

    Attributes:
        facts: The facts of its history, in their order.
        last_event: The number of the last event of its history.
    """

    facts: tuple[Fact, ...]
    last_event: int

    @property
    def started(self) -> ExecutionStarted:
        """Start of the execution."""
        first = self.facts[0]
        assert isinstance(first, ExecutionStarted)
        return first

    @property
    def first_task(self) -> datetime | None:
        """First start of the body; None if the body has not been executed."""
        started = None
        for fact in self.facts:
            if isinstance(fact, TaskStarted):
                started = fact.at
            elif isinstance(fact, TaskCompleted):
                return started
        return None

    @property
    def has_body(self) -> bool:
        """True if the body has called something; an execution that begins parked has no body until it resumes."""
        ours = (ActivityScheduled, LocalActivity, MarkerRecorded, ChildInitiated)
        return any(isinstance(fact, ours) for fact in self.facts)

    @property
    def is_parked(self) -> bool:
        """True if the execution has begun parked, and has not started the body since."""
        carried = self.started.carried
        return carried is not None and carried.is_parked and not self.has_body

    @property
    def continues(self) -> str | None:
        """Run id of the execution that this one continues; after a recovery, of the one that was reset."""
        if any(isinstance(fact, Signalled) and fact.is_recovery for fact in self.facts):
            for fact in self.facts:
                if isinstance(fact, TaskFailed) and fact.reset_from is not None:
                    return fact.reset_from
        return self.started.continues


class ExecutionReader:
    """Reader of the executions of one run, which can read them repeatedly; closed executions are read once.

    Args:
        temporal: The connection to the run's namespace.
    """

    def __init__(self, temporal: Client) -> None:
        self._temporal = temporal
        self._ended: dict[str, Execution] = {}

    async def read(self, workflow_id: str, last_run_id: str) -> list[Execution]:
        """Return the executions of a run that still exist, the first one first.

        Args:
            workflow_id: Temporal's workflow id of the run.
            last_run_id: Temporal's run id of its last execution.
        """
        executions: list[Execution] = []
        run_id: str | None = last_run_id
        while run_id and len(executions) < MAX_EXECUTIONS:
            execution = await self._execution(workflow_id, run_id, is_last=not executions)
            if execution is None:
                break
            executions.insert(0, execution)
            run_id = execution.continues
        return executions

    async def _execution(self, workflow_id: str, run_id: str, *, is_last: bool) -> Execution | None:
        if run_id in self._ended:
            return self._ended[run_id]
        handle = self._temporal.get_workflow_handle(workflow_id, run_id=run_id)
        reader = FactReader(self._temporal.data_converter)
        read = []
        last_event = 0
        try:
            async for event in handle.fetch_history_events():
                last_event = event.event_id
                if (fact := await reader.read(event)) is not None:
                    read.append(fact)
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND or is_last:
                raise
            return None  # its retention has ended
        if not read:
            return None
        execution = Execution(tuple(read), last_event)
        if not is_last:
            self._ended[run_id] = execution
        return execution
