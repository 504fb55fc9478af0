"""The body's side of a run's event loop: its branches, its timers, its clock.

Temporal's event loop is shared by the body and by the tasks that serve it. What the body does is known by a context
variable, the branch, which its tasks inherit from one another. In the body

- each task has a branch of its own: the second task that the body makes is ``2``, the first that this one makes is
  ``2.1``, so that the keys of steps can name the branch;
- ``loop.call_later`` and ``call_at``, and so ``asyncio.sleep``, ``timeout`` and ``wait_for``, start a timer that goes
  through the journal: when the body comes back, it fires where it fired, and otherwise has the time that is left;
- ``loop.time()``, ``workflow.now()`` and ``workflow.random()`` are the body's, not those of the present task.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import timedelta
from functools import partial
from itertools import count
from random import Random
from types import FrameType
from typing import Any

from ..durations import format_duration
from ..sandbox.interrupts import contained_task
from ..sandbox.watch import in_body
from ..sdk.ordered_tasks import number_tasks
from ..sdk.wait_until import timers_called
from ..wire.limits import summary
from ..wire.names import ASYNCIO_TIMER
from ..wire.waits import TimedWait, Waits
from .clock import BodyClock
from .journal import Request
from .keys import Keys


class Branch:
    """A task of a body, or the body itself.

    Attributes:
        label: Where it stands among the tasks of the body: ``2.1``; empty for the body itself.
        timers: The keys of the timers of this attempt of the body.
        tasks: The tasks that this attempt of the body has made and that have not ended.
        running: The timers of this attempt of the body that have not fired.
        root: The branch of the body itself.
        numbers: The numbers of the tasks and futures of this attempt of the body, at its root.
    """

    __slots__ = ("_children", "_is_closed", "label", "numbers", "root", "running", "tasks", "timers")

    def __init__(self, label: str = "", parent: Branch | None = None) -> None:
        self.label: str = label
        self.timers: Keys = Keys() if parent is None else parent.timers
        self.tasks: dict[asyncio.Task[Any], None] = {} if parent is None else parent.tasks
        self.running: dict[BodyTimer, None] = {} if parent is None else parent.running
        self._children = 0
        self.root: Branch = self if parent is None else parent.root
        self.numbers: count[int] = count(1)
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """True if the attempt of the body has ended."""
        return self.root._is_closed

    @is_closed.setter
    def is_closed(self, is_closed: bool) -> None:
        self.root._is_closed = is_closed

    def child(self) -> Branch:
        """Return the branch of a further task that this one makes."""
        self._children += 1
        label = f"{self.label}.{self._children}" if self.label else str(self._children)
        return Branch(label, self)


BRANCH: ContextVar[Branch | None] = ContextVar("steporal_branch", default=None)
"""The branch of the body in which this runs; None in what serves the body."""


def out_of_body() -> Context:
    """Return a copy of the present context for a task that serves the body."""
    context = copy_context()
    context.run(BRANCH.set, None)
    return context


def serving(function: Callable[..., object], *args: Any) -> Callable[[], object]:
    """Return a callable that calls a function on behalf of the body, whenever and wherever it is called.

    The function runs in the present context, apart from the branch. The journal calls such functions while no task
    runs, where no context variable of the run has its value: neither its trace nor what the body has set.
    """
    return partial(out_of_body().run, function, *args)


class BodyTimer(asyncio.TimerHandle):
    """A timer that a body has started.

    Args:
        when: When it fires, on the body's clock, in seconds since the epoch.
        key: Its key in the journal.
        branch: The branch of the body that has started it.
        clock: The body's clock.
        waits: The waits of the run.
        start_timer: Starts a timer of Temporal's, as :meth:`RunLoop.call_later`.
    """

    def __init__(
        self,
        when: float,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
        key: str,
        branch: Branch,
        clock: BodyClock,
        waits: Waits,
        start_timer: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self._key = key
        self._branch = branch
        self._clock = clock
        self._waits = waits
        self._start_timer = start_timer
        self._asked = clock.journal.now()
        self._native: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Ask the journal for it; what is due at once takes no time, and leaves no entry."""
        journal = self._clock.journal
        if self._branch.is_closed:  # nothing reaches the tasks that are left of an attempt that has ended
            return
        self._branch.running[self] = None
        if self._due() <= journal.now():
            journal.at_next_turn(self._fire)
        else:
            journal.ask("timer", self._key, Request(self._fire, self._begin, self._due()))

    def _due(self) -> int:
        return self._clock.microseconds(self.when())

    def _begin(self) -> None:
        """Start a timer of Temporal's for the time that is left."""
        clock, waits = self._clock, self._waits
        when = clock.moved(self.when(), self._asked)
        left = round(when - clock.now(), 3)
        if left <= 0 and waits.is_known_to_be_over(self._key):
            clock.journal.arrive("timer", self._key, self._due())
            return
        waits.begin(self._key, TimedWait("asyncio", when))
        with timers_called(summary(self._key)):
            self._native = self._start_timer(max(left, clock.shortest(self._key).total_seconds()), self._fired)

    def _fired(self) -> None:
        self._native = None
        self._waits.end(self._key)
        self._clock.journal.arrive("timer", self._key)

    def _fire(self) -> None:
        self._branch.running.pop(self, None)
        self._loop.call_soon(in_body, self._call)  # type: ignore[attr-defined]

    def _call(self) -> None:
        if not self.cancelled():
            self._run()

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def cancel(self) -> None:
        """See base class."""
        if not self.cancelled():
            self.drop()
        asyncio.Handle.cancel(self)

    def drop(self) -> None:
        """End it without a word to the body."""
        self._branch.running.pop(self, None)
        self._clock.journal.forget("timer", self._key)
        if self._native is not None:
            self._native.cancel()
            self._native = None
            self._waits.end(self._key)


class RunLoop:
    """Event loop of a run, outside its body.

    It is made in the run's task.

    Args:
        clock: The body's clock.
        waits: The waits of the run.
        random: Returns the random numbers of the body's present attempt.
    """

    def __init__(self, clock: BodyClock, waits: Waits, random: Callable[[], Random]) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._waits = waits
        self._body_random = random
        loop = self._loop
        self._numbers = count(1)
        number_tasks(loop, iter(self._next_number, 0), contained_task)
        instance = vars(loop)
        self._create_task = instance["create_task"]
        instance["create_task"] = self._task
        instance["call_soon"] = self._call_soon
        instance["call_later"] = self._call_later
        instance["call_at"] = self._call_at
        instance["time"] = self._time
        instance["workflow_time_ns"] = self._time_ns
        instance["workflow_random"] = self._random
        instance["workflow_sleep"] = self._sleep
        self._jobs_left = 0
        self._run_one_job_at_a_time()

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Start a timer of Temporal's."""
        return type(self._loop).call_later(self._loop, delay, callback, *args, context=out_of_body())

    @property
    def has_more_jobs(self) -> bool:
        """True if the present activation has jobs that the run has not received yet."""
        return self._jobs_left > 0

    # --- what the SDK's loop does, in the body ---------------------------------------------------------------------

    def _next_number(self) -> int:
        branch = BRANCH.get()
        return next(self._numbers if branch is None else branch.root.numbers)

    def _task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        branch = BRANCH.get()
        if branch is None:
            return self._create_task(coro, name=name, context=context)  # type: ignore[no-any-return]
        if context is not None and context.get(BRANCH) is None:
            return self._task_out_of_body(coro, name, context)
        context = copy_context() if context is None else context
        if not _is_of_wait_for(sys._getframe(1)):
            context.run(BRANCH.set, branch.child())
        task: asyncio.Task[Any] = self._create_task(coro, name=name, context=context)
        # The SDK appends the ids of the execution, and asyncio counts the tasks of the process: both change.
        task.set_name(name or f"Task-{hash(task)}")
        branch.tasks[task] = None
        task.add_done_callback(lambda task: branch.tasks.pop(task, None), context=out_of_body())
        return task

    def _task_out_of_body(
        self, coro: Coroutine[Any, Any, Any], name: str | None, context: Context
    ) -> asyncio.Task[Any]:
        """Make a task that serves the body, numbered from outside: the body makes such tasks only where it goes on."""
        branch = BRANCH.set(None)
        try:
            return self._create_task(coro, name=name, context=context)  # type: ignore[no-any-return]
        finally:
            BRANCH.reset(branch)

    def _call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        branch = BRANCH.get() if context is None else context.get(BRANCH)
        if branch is not None:
            callback, args = in_body, (callback, *args)
        return type(self._loop).call_soon(self._loop, callback, *args, context=context)

    def _call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        loop = self._loop
        branch = BRANCH.get()
        if branch is None:
            return type(loop).call_later(loop, delay, callback, *args, context=context)
        delay = max(round(delay, 3), 0)
        key = branch.timers.next(f"{ASYNCIO_TIMER}{format_duration(timedelta(seconds=delay))}", branch.label)
        when, start_timer = self._time() + delay, self.call_later
        timer = BodyTimer(when, callback, args, loop, context, key, branch, self._clock, self._waits, start_timer)
        timer.start()
        return timer

    def _call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._call_later(round(when - self._time(), 3), callback, *args, context=context)

    def _time_ns(self) -> int:
        if BRANCH.get() is None:
            return type(self._loop).workflow_time_ns(self._loop)  # type: ignore[attr-defined, no-any-return]
        return self._clock.nanoseconds()

    def _time(self) -> float:
        return self._time_ns() / 1e9

    async def _sleep(self, duration: float, **options: Any) -> None:
        if BRANCH.get() is None:
            await type(self._loop).workflow_sleep(self._loop, duration, **options)  # type: ignore[attr-defined]
        else:
            await asyncio.sleep(duration)

    def _random(self) -> Any:
        if BRANCH.get() is None:
            return type(self._loop).workflow_random(self._loop)  # type: ignore[attr-defined]
        return self._body_random()

    def _run_one_job_at_a_time(self) -> None:
        """Let the run make everything of one job of an activation before it is given the next one.

        The SDK applies all jobs of an activation, the signals first, and then lets the tasks go on: what was resolved
        by different jobs then interleaves, in an order that a history does not show. With one job at a time, the order
        in which a body sees outcomes is the order of the events in the history.
        """
        loop: Any = self._loop
        apply = type(loop)._apply

        activate_all = loop.activate  # of the runner, which can always evict the run (evicting.py)

        def activate(act: Any) -> Any:
            self._jobs_left = sum(job.WhichOneof("variant") in _OUTCOMES for job in act.jobs)
            return activate_all(act)

        def apply_and_run(job: Any) -> None:
            apply(loop, job)
            if job.WhichOneof("variant") in _OUTCOMES:
                self._jobs_left -= 1
                loop.call_soon(lambda: None)  # conditions are looked at where something was to do
                loop._run_once(check_conditions=True, jobs=[job])

        instance = vars(loop)
        instance["activate"] = activate
        instance["_apply"] = apply_and_run


def _is_of_wait_for(caller: FrameType) -> bool:
    """Return whether ``asyncio.wait_for`` makes a task: in Python 3.11 alone it does, of what it is given.

    A key that named the branch of that task would be another one in Python 3.12.
    """
    frame: FrameType | None = caller
    for _ in range(3):
        if frame is None:
            return False
        if frame.f_code is asyncio.wait_for.__code__:
            return True
        frame = frame.f_back
    return False


_OUTCOMES = frozenset(
    {
        "fire_timer",
        "signal_workflow",
        "cancel_workflow",
        "resolve_activity",
        "resolve_child_workflow_execution_start",
        "resolve_child_workflow_execution",
        "resolve_signal_external_workflow",
        "resolve_request_cancel_external_workflow",
    }
)
