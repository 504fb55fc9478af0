"""The tasks and futures of a run, which sets keep in the same order each time.

``asyncio.wait`` returns sets, and ``TaskGroup`` cancels what is in one. A set is in the order of hashes, which are
addresses in memory: another order in each replay, in which a body that cancels the losers of a race would issue its
commands. What a body can wait for has a number for its hash: tasks, what ``gather`` and ``shield`` return, futures of
the loop, and Temporal's own handles.
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
"""How the SDK calls the tasks of queries, which a replay does not have."""

_NUMBERS = "_steporal_numbers"
_NUMBER = "_steporal_number"


class NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its number."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._number = number  # before asyncio puts the task into a set of its own
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


def _number(future: asyncio.Future[Any]) -> int:
    """The hash of a future: in a run, how many were asked for theirs before; elsewhere what it always is."""
    number: int | None = getattr(future, _NUMBER, None)
    if number is None:
        numbers = getattr(future.get_loop(), _NUMBERS, None)
        number = object.__hash__(future) if numbers is None else next(numbers)
        setattr(future, _NUMBER, number)
    return number


class NumberedFuture(asyncio.Future[Any]):
    """A future whose hash is a number."""

    __hash__ = _number


# The SDK and asyncio make these themselves, and nobody can give them a class that is to be used instead.
for _kind in (asyncio.tasks._GatheringFuture, ActivityHandle, ChildWorkflowHandle):  # type: ignore[attr-defined]
    _kind.__hash__ = _number  # type: ignore[method-assign]


_as_completed = asyncio.as_completed


@wraps(_as_completed)
def as_completed(fs: Any, *, timeout: float | None = None) -> Any:
    """Do as ``asyncio.as_completed`` does; in a run, begin the awaitables in the order in which they are given.

    asyncio puts them into a set first. A set of coroutines is in the order of their addresses; a set of a run's tasks
    is in order.
    """
    is_one = asyncio.isfuture(fs) or asyncio.iscoroutine(fs)
    if not is_one and getattr(asyncio.get_running_loop(), _NUMBERS, None) is not None:
        fs = [asyncio.ensure_future(each) for each in fs]
    return _as_completed(fs, timeout=timeout)


asyncio.as_completed = asyncio.tasks.as_completed = as_completed


def number_tasks(loop: asyncio.AbstractEventLoop, numbers: Iterator[int], wrap: Wrap) -> None:
    """From now on, number the tasks and futures of a run.

    The SDK takes no task factory; its workflow instance, which is the event loop of the run, makes the tasks itself.

    Args:
        loop: The run's.
        numbers: The numbers. Sets of small numbers are not in the order of the numbers where the numbers are larger
            than the set, so those that the body sees must be the same whenever it begins again.
        wrap: Returns what a task executes, for the coroutine that it was made of.
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
