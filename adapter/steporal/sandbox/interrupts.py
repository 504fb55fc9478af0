"""Errors of a body that would end a program: they fail the run, but never stop the worker.

``sys.exit()`` raises ``SystemExit``. asyncio does not keep it in a task: it leaves the run's event loop, and then the
thread that executes the worker's workflow tasks. Any other error that is not an ``Exception`` ends the asyncio task
without a message, and the run hangs. Both become `NonRetryableError` where they leave the code of the app.
"""

from __future__ import annotations

import asyncio
import decimal
import functools
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any

from ..errors import NonRetryableError
from ..wire.failures import is_users
from .watch import in_body

_FROM_OUTSIDE = ("temporalio.", "asyncio.")
"""Modules whose errors interrupt a body: Temporal's SDK, and asyncio's cancellation."""


def ends_the_program(error: BaseException) -> bool:
    """Return whether an error would end a program, as ``SystemExit`` does."""
    if isinstance(error, Exception | asyncio.CancelledError):
        return False
    return not f"{type(error).__module__}.".startswith(_FROM_OUTSIDE)


def contained(error: BaseException) -> NonRetryableError:
    """Return the error that the run fails with instead."""
    what = type(error).__name__
    if isinstance(error, SystemExit) and error.code is not None:
        what = f"{what} with {error.code!r}"
    elif isinstance(error, BaseExceptionGroup):
        what = f"{what} of {', '.join(type(inner).__name__ for inner in error.exceptions)}"
    return NonRetryableError(
        f"the body raised {what}, which ends a program; return from the handler, or raise NonRetryableError to fail "
        "the run"
    ).with_traceback(error.__traceback__)


class Contained(Coroutine[Any, Any, Any]):
    """Coroutine of the app that can end at most its run.

    Python closes a coroutine by raising ``GeneratorExit`` in it. That one passes; one that the app raises does not.

    Args:
        coroutine: The coroutine.
        context: The context to run in; if None, the current one each time the coroutine continues.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], context: Context | None = None) -> None:
        self._coroutine = coroutine
        self._context = context

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args) if self._context is None else self._context.run(function, *args)

    def send(self, value: Any) -> Any:
        """See base class."""
        try:
            return self._run(in_body, self._coroutine.send, value)
        except BaseException as err:
            if ends_the_program(err):
                raise contained(err) from None
            raise

    def throw(self, *error: Any) -> Any:
        """See base class."""
        try:
            return self._run(in_body, self._coroutine.throw, *error)
        except BaseException as err:
            is_thrown = err is error[0] or type(err) is error[0]
            if not is_thrown and ends_the_program(err):
                raise contained(err) from None
            raise

    def close(self) -> None:
        """See base class."""
        self._run(self._coroutine.close)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # an iterator with send, throw and close is sufficient

    def __iter__(self) -> Contained:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)  # the name and frame, which stack traces show


def containing(handler: Callable[..., Any]) -> Callable[..., Contained]:
    """Return a handler whose coroutine can end at most its run, and whose context variables do not outlive it.

    Each attempt of a body begins with the same values in context variables: values set by an earlier attempt would be
    missing when the body resumes in another execution.
    """

    @functools.wraps(handler)
    def call(*arguments: Any) -> Contained:
        context = copy_context()
        context.run(_copy_decimal_context)
        return Contained(_as_coroutine(handler, arguments), context)

    return call


def _copy_decimal_context() -> None:
    """Copy the object in the variable, so that ``decimal.getcontext().prec = 5`` changes no shared one."""
    decimal.setcontext(decimal.getcontext().copy())


async def _as_coroutine(handler: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return await handler(*arguments)


def contained_task(coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    """Return the coroutine that a task of a run executes: code of the app can end at most the run."""
    code = getattr(coroutine, "cr_code", None)
    return Contained(coroutine) if code is not None and is_users(code.co_filename) else coroutine
