"""The tasks of a run, which sets keep in the same order each time.

``asyncio.wait`` returns sets, and ``TaskGroup`` cancels what is in one. A set is in the order of hashes, which are
addresses in memory: another order in each replay, in which a body that cancels the losers of a race would issue its
commands. The tasks of a run have their numbers for hashes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from itertools import count
from typing import Any

_QUERY = "query: "
"""How the SDK calls the tasks of queries, which a replay does not have."""


class NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its number."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._number = number  # before asyncio puts the task into a set of its own
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


def number_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """From now on, number the tasks of a run.

    The SDK takes no task factory; its workflow instance, which is the event loop of the run, makes the tasks itself.
    """
    numbers = count(1)
    instance = vars(loop)

    def create_task(
        coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        if name is not None and name.startswith(_QUERY):
            return type(loop).create_task(loop, coro, name=name, context=context)
        task = NumberedTask(next(numbers), coro, loop=loop, context=context)
        loop._register_task(task, name=name)  # type: ignore[attr-defined]
        return task

    instance["create_task"] = create_task
