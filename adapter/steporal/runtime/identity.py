"""Identity of a run: its workflow, its ids and what started it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from temporalio import workflow

from ..types import JSON
from ..wire.start import Origin


def run_id() -> str:
    """Return the id of the run that executes, the same in each of its executions."""
    return workflow.info().first_execution_run_id


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Names of a run, and what started it.

    Attributes:
        app: The app's id.
        workflow: The workflow's id.
        origin: What started the run.
        data: Its input, as plain JSON.
        started: Time when its first execution started, in milliseconds since the epoch.
    """

    app: str
    workflow: str
    origin: Origin
    data: JSON
    started: int

    @property
    def event(self) -> dict[str, Any]:
        """The event that started the run, as expressions see it in ``event``."""
        origin = self.origin
        ts = int(origin.time().timestamp() * 1000)
        return {"name": origin.name, "data": self.data, "id": origin.id, "ts": ts, "v": origin.v}
