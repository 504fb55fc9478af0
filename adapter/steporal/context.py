"""What a handler is given: its input, and the deterministic sources of time, chance and log."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, Protocol
from uuid import UUID

from typing_extensions import TypeVar

I = TypeVar("I", default=Any)  # noqa: E741

InputType = Literal["event", "cron", "invoke"]


@dataclass(frozen=True, slots=True)
class InputExt:
    """What Temporal adds to an input.

    Attributes:
        v: The version that the event's sender gave, if any.
        cron: The schedule that started the run, if one did.
    """

    v: str | None = None
    cron: str | None = None


@dataclass(frozen=True, slots=True)
class Input(Generic[I]):
    """What started a run.

    Attributes:
        data: The event's data, validated by the workflow's ``input_schema``; plain JSON without one.
        id: The event's id.
        name: The event's name; ``inngest/function.invoked`` for a run that was started directly, and
            ``inngest/scheduled.timer`` for one that a cron trigger started.
        time: When the event was sent, or its ``ts``; aware, in UTC.
        type: ``"event"``, ``"cron"`` or ``"invoke"``.
        ext: What Temporal adds.
    """

    data: I
    id: str
    name: str
    time: datetime
    type: InputType
    ext: InputExt = InputExt()


@dataclass(frozen=True, slots=True)
class ContextExt:
    """Where a run lives in Temporal.

    Attributes:
        workflow_id: Temporal's workflow id.
        namespace: Temporal's namespace.
        task_queue: The task queue of the run.
    """

    workflow_id: str
    namespace: str
    task_queue: str


class Surroundings(Protocol):
    """Where a context is used: in a handler's body, or in a step function that captured it."""

    @property
    def attempt(self) -> int:
        """The attempt of the body or of the step, from 0."""

    @property
    def random(self) -> random.Random:
        """A source of chance."""

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        """A logger."""

    def now(self) -> datetime:
        """The time, aware, in UTC."""

    def uuid4(self) -> UUID:
        """A random UUID."""


class Context(Generic[I]):
    """What a handler is given first.

    A step function may capture it, and then has a read-only copy of it, whose ``attempt`` is the step's.

    Attributes:
        input: What started the run.
        run_id: The run's id, stable for its whole life, also after Temporal's continue-as-new.
        max_attempts: How often the body is attempted at most, in all.
        ext: Where the run lives in Temporal.
    """

    __slots__ = ("_surroundings", "ext", "input", "max_attempts", "run_id")

    def __init__(
        self, *, input: Input[I], run_id: str, max_attempts: int, ext: ContextExt, surroundings: Surroundings
    ) -> None:
        self.input: Input[I] = input
        self.run_id: str = run_id
        self.max_attempts: int = max_attempts
        self.ext: ContextExt = ext
        self._surroundings = surroundings

    @property
    def attempt(self) -> int:
        """The attempt, from 0: in the body, of the body since the last step finished; in a step, of the step."""
        return self._surroundings.attempt

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        """Logs with the run's ids; silent on replay, and where an execution or attempt before this has been."""
        return self._surroundings.logger

    @property
    def random(self) -> random.Random:
        """A ``random.Random`` that gives the same numbers when the run is replayed."""
        return self._surroundings.random

    def now(self) -> datetime:
        """The time of the run, aware, in UTC; the same when the run is replayed."""
        return self._surroundings.now()

    def uuid4(self) -> UUID:
        """A random UUID; the same when the run is replayed."""
        return self._surroundings.uuid4()
