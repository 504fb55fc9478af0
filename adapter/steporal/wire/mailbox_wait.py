"""Waits for signals, as runs and mailboxes exchange them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field
from temporalio.common import RawValue

from ..types import JSON
from ..values.converter import to_raw
from .limits import FAR_FUTURE


class Wait(BaseModel):
    """Wait of a run for a signal.

    Attributes:
        signal: The signal's name.
        workflow_id: The run's Temporal workflow id.
        run_id: The run's id: that of its first execution.
        key: The run's key of the wait, unique in the run.
        until: The end of the wait, in seconds since the epoch.
        data_type: The name of the type that the data must fit; None if the mailbox need not check the data.
        task_queue: The task queue of the app that defines the type.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    signal: str
    workflow_id: str
    run_id: str
    key: str
    until: float = Field(allow_inf_nan=False, le=FAR_FUTURE)
    data_type: JSON = None
    task_queue: str = ""

    def is_same(self, other: Wait) -> bool:
        """Return whether both describe the same wait."""
        return (self.run_id, self.key) == (other.run_id, other.key)

    def raw(self) -> RawValue:
        """Return the wait as a payload."""
        return to_raw(self.model_dump(mode="json"))
