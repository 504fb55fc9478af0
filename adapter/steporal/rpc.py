"""Calls to Temporal with limited concurrency, and classification of their errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.service import RPCError, RPCStatusCode

S = TypeVar("S")
T = TypeVar("T")

_AT_ONCE = 16


async def bounded(call: Callable[[S], Coroutine[Any, Any, T]], items: Iterable[S]) -> list[T]:
    """Call Temporal for each of the items, 16 at a time, and return the results in order.

    Raises:
        Exception: The first error; calls in flight are cancelled.
    """
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(item: S) -> T:
        async with slots:
            return await call(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None
    return [task.result() for task in tasks]


def first_of(error: BaseException) -> BaseException:
    """Return the first error in groups of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def is_about_namespace(error: RPCError) -> bool:
    """Return whether Temporal does not know the namespace."""
    return any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details)


def is_missing(error: RPCError) -> bool:
    """Return whether Temporal does not know the workflow, although it knows the namespace."""
    return error.status == RPCStatusCode.NOT_FOUND and not is_about_namespace(error)
