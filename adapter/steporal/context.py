"""Context of a handler: its input, and deterministic sources of time, randomness and log messages."""

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
    """Additional fields of an input.

    Attributes:
        v: The version that the event's sender set, if any.
        cron: The schedule that started the run, if any.
    """

    v: str | None = None
    cron: str | None = None


@dataclass(frozen=True, slots=True)
class Input(Generic[I]):
    """Event, schedule or call that started a run.

    Attributes:
        data: The event's data, validated by the workflow's ``input_schema``; plain JSON without one.
        id: The event's id.
        name: The event's name; ``inngest/function.invoked`` for a run that was started directly, and
            ``inngest/scheduled.timer`` for one that a cron trigger started.
        time: The time when the event was sent, or its ``ts``; aware, in UTC.
        type: ``"event"``, ``"cron"`` or ``"invoke"``.
        ext: Additional fields.
    """

    data: I
    id: str
    name: str
    time: datetime
    type: InputType
    ext: InputExt = InputExt()


@dataclass(frozen=True, slots=True)
class ContextExt:
    """Location of a run in Temporal.

    Attributes:
        workflow_id: The run's Temporal workflow id.
        namespace: The run's Temporal namespace.
        task_queue: The run's task queue.
    """

    workflow_id: str
    namespace: str
    task_queue: str


class Surroundings(Protocol):
    """Environment of a context: a handler's body, or a step function that captured the context."""

    @property
    def attempt(self) -> int:
        """Attempt of the body or of the step, from 0."""

    @property
    def random(self) -> random.Random:
        """Source of random numbers."""

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        """Logger of the run."""

    def now(self) -> datetime:
        """Return the time; aware, in UTC."""

    def uuid4(self) -> UUID:
        """Return a random UUID."""


class Context(Generic[I]):
    """First argument of a handler.

    A step function that captures the context receives a read-only copy, whose ``attempt`` is the step's.

    Attributes:
        input: The event, schedule or call that started the run.
        run_id: The run's id, stable for its whole life, even after Temporal's continue-as-new.
        max_attempts: The maximum number of attempts of the body, including the first.
        ext: The run's location in Temporal.
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
        """Attempt, from 0: in the body, its attempt since the last step finished; in a step, the step's attempt."""
        return self._surroundings.attempt

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        """Logger that adds the run's ids; silent on replay, and where an earlier execution or attempt has been."""
        return self._surroundings.logger

    @property
    def random(self) -> random.Random:
        """Random number generator that returns the same numbers when the run is replayed."""
        return self._surroundings.random

    def now(self) -> datetime:
        """Return the run's time, aware, in UTC; the same when the run is replayed."""
        return self._surroundings.now()

    def uuid4(self) -> UUID:
        """Return a random UUID; the same when the run is replayed."""
        return self._surroundings.uuid4()
