"""Checks of what steps are called with."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FunctionType
from typing import Any

import pydantic
from temporalio import workflow

from ...durations import Duration, parse_deadline, parse_duration
from ...errors import InvalidArgumentError
from ...validation import check_id, check_id_argument
from ...values.adapters import adapter


@contextmanager
def arguments_checked(step_id: str) -> Iterator[None]:
    """Turns a ValueError or TypeError about an argument into one that names the step and fails the run at once."""
    try:
        yield
    except InvalidArgumentError:
        raise
    except (ValueError, TypeError) as err:
        where, message = f"step {step_id!r}", str(err)
        raise InvalidArgumentError(message if where in message else f"{where}: {message}") from None


def deadline_of(until: Duration | datetime, what: str) -> datetime:
    """A duration from now, or a time, as a time."""
    if isinstance(until, datetime):
        return parse_deadline(until, what=what)
    return workflow.now() + parse_duration(until, what=what)


def check_step_id(step_id: object) -> None:
    """Check a step's id.

    Raises:
        InvalidArgumentError: It is not text of 1 to 255 bytes.
    """
    check_id_argument(step_id, "a step id")


def check_task_queue(task_queue: object, *, is_local: object) -> str | None:
    """Return the task queue of a step, checked together with ``local``.

    Raises:
        TypeError: ``local`` is not a bool.
        ValueError: The task queue is not a name, or a local step has one.
    """
    if not isinstance(is_local, bool):
        raise TypeError(f"local is {is_local!r}; it takes True or False")
    if task_queue is None:
        return None
    if is_local:
        raise ValueError("local=True runs the step in the run's own worker; remove task_queue")
    return check_id(task_queue, "task_queue")


def check_type(kind: Any, what: str) -> None:
    """Check anything that values are validated by.

    Raises:
        ValueError: Pydantic cannot validate by it.
    """
    if kind is None or (isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)):
        return
    try:
        if isinstance(kind, str):
            raise TypeError("a string may name a type, but it is not one")
        adapter(kind)
    except Exception as err:
        raise ValueError(
            f"{what} is {kind!r}; it takes a pydantic model or any type that pydantic.TypeAdapter does: {err}"
        ) from None


def check_function(function: object, args: tuple[Any, ...]) -> None:
    """Check that a step's function can be called with its arguments, as far as its signature says.

    Raises:
        TypeError: It cannot be called, is a coroutine already, or does not take the arguments.
    """
    if isinstance(function, FunctionType) and _takes(function, len(args)):
        return
    if isinstance(function, Coroutine):
        function.close()  # or Python warns that nothing awaits it
        raise TypeError(
            "its function is a coroutine, which is already called; pass the function, then its arguments: "
            "step.run('id', fetch, url), or a lambda: step.run('id', lambda: fetch(url))"
        )
    if not callable(function):
        raise TypeError(
            f"its function is {function!r} ({type(function).__name__}), which cannot be called; pass a function, "
            "then its arguments: step.run('id', fetch, url)"
        )
    try:
        # Not the signature of what a decorator wraps: the decorator may give it further arguments.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return  # a builtin; and what else it is, `references` says
    try:
        signature.bind(*args)
    except TypeError as err:
        name = getattr(function, "__qualname__", None) or repr(function)
        raise TypeError(
            f"its function {name}{_written(signature)} cannot be called with the {_counted(args)} of step.run: {err}"
        ) from None


def _takes(function: FunctionType, count: int) -> bool:
    """Return whether a function accepts a number of positional arguments, in a tenth of the time of its signature."""
    code = function.__code__
    required = code.co_argcount - len(function.__defaults__ or ())
    max_count = count if code.co_flags & inspect.CO_VARARGS else code.co_argcount
    return required <= count <= max_count and len(function.__kwdefaults__ or ()) == code.co_kwonlyargcount


def _written(signature: inspect.Signature) -> str:
    plain = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return str(inspect.Signature(plain))


def _counted(args: tuple[Any, ...]) -> str:
    return f"{len(args)} argument{'s' * (len(args) != 1)}"
