"""Tasks and futures of a run, with hashes that make sets of them keep the same order in each replay.

``asyncio.wait`` returns sets, and ``TaskGroup`` cancels the tasks in one. A set is ordered by hashes, which are
addresses in memory by default. So the order would differ in each replay, and a body that cancels the losers of a race
would issue its commands in another order. Here, everything that a body can wait for has a number as its hash: tasks,
the results of ``gather`` and ``shield``, futures of the loop, and Temporal's own handles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from functools import wraps
from typing import Any

from temporalio.workflow import ActivityHandle, ChildWorkflowHandle

Wrap = Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]

_QUERY = "query: "
"""Prefix of the SDK's names for tasks of queries, which a replay does not have."""

_NUMBERS = "_steporal_numbers"
_NUMBER = "_steporal_number"


class NumberedTask(asyncio.Task[Any]):
    """Task whose hash is its number."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._number = number  # before asyncio puts the task into one of its sets
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


def _number(future: asyncio.Future[Any]) -> int:
    """Return the hash of a future: in a run, the number of futures hashed before it; elsewhere, the default."""
    number: int | None = getattr(future, _NUMBER, None)
    if number is None:
        numbers = getattr(future.get_loop(), _NUMBERS, None)
        number = object.__hash__(future) if numbers is None else next(numbers)
        setattr(future, _NUMBER, number)
    return number


class NumberedFuture(asyncio.Future[Any]):
    """Future whose hash is a number."""

    __hash__ = _number


# The SDK and asyncio create these, and have no way to replace their classes.
for _kind in (asyncio.tasks._GatheringFuture, ActivityHandle, ChildWorkflowHandle):  # type: ignore[attr-defined]
    _kind.__hash__ = _number  # type: ignore[method-assign]


_as_completed = asyncio.as_completed


@wraps(_as_completed)
def as_completed(fs: Any, *, timeout: float | None = None) -> Any:
    """Behave as ``asyncio.as_completed``; in a run, start the awaitables in the order in which they are passed.

    asyncio first puts them into a set. A set of coroutines is ordered by their addresses, a set of a run's tasks by
    their numbers.
    """
    is_one = asyncio.isfuture(fs) or asyncio.iscoroutine(fs)
    if not is_one and getattr(asyncio.get_running_loop(), _NUMBERS, None) is not None:
        fs = [asyncio.ensure_future(each) for each in fs]
    return _as_completed(fs, timeout=timeout)


asyncio.as_completed = asyncio.tasks.as_completed = as_completed


def number_tasks(loop: asyncio.AbstractEventLoop, numbers: Iterator[int], wrap: Wrap) -> None:
    """Number the tasks and futures of a run from now on.

    The SDK accepts no task factory; its workflow instance, which is the event loop of the run, creates the tasks.

    Args:
        loop: The run's event loop.
        numbers: The numbers. If a number is larger than a set, the set is not in the order of the numbers. So the
            numbers that the body sees must be the same whenever it begins again.
        wrap: Wraps the coroutine that a task executes.
    """
    instance = vars(loop)

    def create_task(
        coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        if name is not None and name.startswith(_QUERY):
            return type(loop).create_task(loop, coro, name=name, context=context)
        task = NumberedTask(next(numbers), wrap(coro), loop=loop, context=context)
        loop._register_task(task, name=name)  # type: ignore[attr-defined]
        return task

    instance["create_task"] = create_task
    instance["create_future"] = lambda: NumberedFuture(loop=loop)
    instance[_NUMBERS] = numbers
