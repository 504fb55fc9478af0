"""The runs that a run has invoked, and who waits for its own end.

Temporal hands a child's result to the execution that started it alone. One that continues as new asks its children
before to report their end by a signal, which finds whatever execution there is then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

from ..types import JSON
from ..values.converter import to_raw
from ..wire.failures import stack_of
from ..wire.limits import MAX_WORKFLOW_ID_BYTES
from ..wire.memo import Failure, Outcome
from ..wire.names import ENDED, REPORT
from ..wire.run_state import is_outcome, outcome_json, packed_outcome, unpacked_outcome
from ..wire.storage import HAS_STORAGE
from ..wire.waits import InvokeWait, Waits


def read_parent(message: JSON) -> dict[str, str] | None:
    """Return the run that requests a report of the end, from a :data:`REPORT` signal; None for another message."""
    if not isinstance(message, dict):
        return None
    workflow_id, run_id = message.get("workflow_id"), message.get("run_id")
    if not isinstance(workflow_id, str) or not 0 < len(workflow_id.encode()) <= MAX_WORKFLOW_ID_BYTES:
        return None
    return {"workflow_id": workflow_id, "run_id": run_id} if isinstance(run_id, str) else None


def read_end(message: JSON, run_id: str) -> tuple[str, JSON] | None:
    """The invoked run and its outcome that :data:`ENDED` brings; None if it is for another run, or no such message."""
    if not isinstance(message, dict) or message.get("run_id") != run_id:
        return None
    try:
        child, outcome = message.get("child"), unpacked_outcome(message.get("outcome"))
    except ValueError:
        return None
    return (child, outcome) if isinstance(child, str) and is_outcome(outcome) else None


class Children:
    """Runs that a run has invoked, and runs that have invoked it.

    Attributes:
        ended: How those have ended that have reported it, by workflow id.
        invoked: Those that were invoked before the run was recovered, and have been asked to report, by workflow id;
            with the steps that invoked them, where the history has their names.
        reports_to: Who waits for the end of this run.
    """

    def __init__(self) -> None:
        self.ended: dict[str, JSON] = {}
        self.invoked: dict[str, str | None] = {}
        self._awaited: dict[str, None] = {}
        self.reports_to: list[dict[str, str]] = []
        self._reported = 0

    def report_to(self, message: JSON) -> None:
        """Remember who wants to hear of the end."""
        parent = read_parent(message)
        if parent is not None and parent not in self.reports_to:
            self.reports_to.append(parent)

    @contextmanager
    def awaiting(self, child: str) -> Iterator[None]:
        """A step waits for the end of this one, by whatever way it hears of it."""
        self._awaited[child] = None
        try:
            yield
        finally:
            self._awaited.pop(child, None)
            self.ended.pop(child, None)

    def has_ended(self, message: JSON, waits: Waits) -> None:
        """Remember how an invoked run has ended, if it is one of this run and a step waits for it, or is about to."""
        end = read_end(message, workflow.info().first_execution_run_id)
        if end is None:
            return
        child, outcome = end
        carried = (waiting.child for waiting in waits.carried.values() if isinstance(waiting, InvokeWait))
        if child in self._awaited or child in self.invoked or child in carried:
            self.ended[child] = outcome

    async def ask(self, child: str) -> bool:
        """Ask an invoked run to report its end; False if it has ended already."""
        info = workflow.info()
        parent: JSON = {"workflow_id": info.workflow_id, "run_id": info.first_execution_run_id}
        try:
            await workflow.get_external_workflow_handle(child).signal(REPORT, to_raw(parent))
        except FailureError:
            return False
        return True

    async def report(self, outcome: Outcome) -> None:
        """Tell those who wait, and have not been told, that this run ends.

        To be the last thing of a run: who asks later finds it closed.
        """
        is_stored = HAS_STORAGE in workflow.extern_functions()
        while self._reported < len(self.reports_to):
            parent = self.reports_to[self._reported]
            self._reported += 1
            message = {
                "run_id": parent["run_id"],
                "child": workflow.info().workflow_id,
                "outcome": packed_outcome(outcome_json(outcome), is_stored=is_stored),
            }
            try:
                await workflow.get_external_workflow_handle(parent["workflow_id"]).signal(ENDED, to_raw(message))
            except FailureError:
                workflow.logger.info("run %s no longer waits for the end of this one", parent["workflow_id"])


def failed_with(error: ApplicationError) -> Outcome:
    """Return the outcome of a failed run, for the step that invoked it."""
    detail = error.details[0] if error.details else None
    attempts = detail.get("attempts", 0) if isinstance(detail, dict) else 0
    return Outcome(failure=Failure(error.type or "ApplicationError", error.message, stack_of(error), attempts, error))


def was_cancelled() -> Outcome:
    """Return the outcome of a cancelled run, for the step that invoked it."""
    return Outcome(failure=Failure("CancelledError", "the run was cancelled"))
