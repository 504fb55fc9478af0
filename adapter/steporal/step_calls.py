"""Calls of steps: their places, whether they were awaited, and errors for invalid calls.

A step method of ``step``, ``step.ext`` or a listener returns a :class:`StepCall`, which asyncio accepts as a coroutine.
The attempt of the body keeps the calls that nothing has awaited yet. If the body returns while one remains, it has
forgotten an ``await``, and the run fails. Only calls, awaits and cancellations count, never the garbage collector, so a
replay comes to the same result.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from types import CodeType, FrameType
from typing import Any, Protocol, TypeVar, cast

from .errors import InvalidArgumentError, InvalidEventError, NonRetryableError, StepNotAwaitedError, UnknownStepError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_SHOWN = 5
_MAX_SHOWN = 255  # a longer id is not valid

_ENDS_WITH_PLACE = re.compile(r"\(\S+:\d+\)$")

_WAITS = frozenset(
    (
        "step.sleep",
        "step.sleep_until",
        "step.ext.sleep_until",
        "step.wait_for_signal",
        "step.ext.wait_for_event",
        "step.ext.listen",
        "listener.next",
        "listener.close",
    )
)
"""Steps that only wait, so that nothing is lost if the body returns without awaiting them."""


class StepCall(Coroutine[Any, Any, T]):
    """Call of a step: a coroutine that records whether anything has awaited it.

    Attributes:
        method: The called method: ``step.run``.
        step_id: The step's id; empty for a call without one.
        place: The file and line of the call.
    """

    __slots__ = ("_coroutine", "_is_begun", "_step_calls", "method", "place", "step_id")

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], calls: StepCalls, method: str, step_id: str, place: tuple[str, int]
    ) -> None:
        self._coroutine = coroutine
        self._step_calls = calls
        self._is_begun = False
        self.method: str = method
        self.step_id: str = step_id
        self.place: tuple[str, int] = place

    def __repr__(self) -> str:
        return f"<call of {self}>"

    def __str__(self) -> str:
        return f"{_what(self.method, self.step_id)} ({place_of(*self.place)})"

    def _begin(self) -> None:
        self._is_begun = True
        self._step_calls.begun(self)

    def __await__(self) -> Generator[Any, Any, T]:
        if self._is_begun:
            raise InvalidArgumentError(
                f"{self} is awaited twice; await it once and keep the result, or await one task of it: "
                "task = asyncio.create_task(step.run(...))"
            )
        self._begin()
        try:
            return (yield from self._coroutine.__await__())
        finally:
            self._step_calls.ended(self)

    def send(self, value: Any) -> Any:
        """See :class:`collections.abc.Coroutine`."""
        return self._go_on(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        """See :class:`collections.abc.Coroutine`."""
        return self._go_on(self._coroutine.throw, *error)

    def _go_on(self, go_on: Callable[..., Any], *arguments: Any) -> Any:
        if not self._is_begun:
            self._begin()
        try:
            return go_on(*arguments)
        except BaseException:  # including StopIteration, with the result
            self._step_calls.ended(self)
            raise

    def close(self) -> None:
        """See :class:`collections.abc.Coroutine`."""
        self._is_begun = True
        self._step_calls.ended(self)
        self._coroutine.close()

    def drop(self) -> None:
        """Close a call that nothing has awaited, because its attempt of the body has ended.

        A task that would begin the call later is cancelled.
        """
        self._coroutine.close()

    # Attributes that asyncio and debuggers read to print a task's stack.

    @property
    def cr_code(self) -> CodeType:
        return cast(CodeType, self._coroutine.cr_code)  # type: ignore[attr-defined]

    @property
    def cr_frame(self) -> FrameType | None:
        return cast("FrameType | None", self._coroutine.cr_frame)  # type: ignore[attr-defined]

    @property
    def cr_running(self) -> bool:
        return bool(self._coroutine.cr_running)  # type: ignore[attr-defined]

    @property
    def cr_await(self) -> Any:
        return self._coroutine.cr_await  # type: ignore[attr-defined]


class StepCalls:
    """Calls of steps that one attempt of a body has made and that have not ended."""

    def __init__(self) -> None:
        self._waiting: dict[StepCall[Any], None] = {}  # in the order of the calls
        self._running: dict[StepCall[Any], None] = {}
        self._is_closed = False

    def add(self, call: StepCall[T]) -> StepCall[T]:
        """Keep a call until something awaits it."""
        self._waiting[call] = None
        return call

    def begun(self, call: StepCall[Any]) -> None:
        """Register a call that something awaits.

        Raises:
            CancelledError: The attempt of the body has ended.
        """
        if self._is_closed:
            raise asyncio.CancelledError("this attempt of the body has ended")
        self._waiting.pop(call, None)
        self._running[call] = None

    def ended(self, call: StepCall[Any]) -> None:
        """Forget a call."""
        self._waiting.pop(call, None)
        self._running.pop(call, None)

    def check_awaited(self) -> None:
        """Check, when the body has returned, that it has awaited every call.

        A call whose task was cancelled before it began counts as awaited.

        Raises:
            StepNotAwaitedError: The body did not await some calls; the message has each call's file and line.
        """
        forgotten = list(self._waiting)
        if forgotten:
            cancelled = {id(task.get_coro()) for task in asyncio.all_tasks() if task.cancelling()}
            forgotten = [call for call in forgotten if id(call) not in cancelled]
        if not forgotten:
            return
        first, *others = forgotten
        more = f"; the same applies to {_listed(others)}" if others else ""
        example = f"await {first.method}({repr(first.step_id) + ', ' if first.step_id else ''}...)"
        raise StepNotAwaitedError(
            f"{first} was called and never awaited, so it did not run; write `{example}`, or pass the call to "
            f"asyncio.gather or to a task that the body awaits{more}"
        )

    def still_running(self) -> str:
        """Return the calls that have begun and not ended, for a message; empty if there are none.

        Steps that only wait are left out.
        """
        return _listed([call for call in self._running if call.method not in _WAITS])

    def close(self) -> None:
        """Close the calls that nothing has awaited, so that Python does not warn about them."""
        self._is_closed = True
        for call in self._waiting:
            call.drop()
        self._waiting.clear()


def _listed(calls: list[StepCall[Any]]) -> str:
    more = f" and {len(calls) - _SHOWN:,} more" if len(calls) > _SHOWN else ""
    return ", ".join(map(str, calls[:_SHOWN])) + more


def _what(method: str, step_id: object) -> str:
    is_id = isinstance(step_id, str) and 0 < len(step_id) <= _MAX_SHOWN
    return f"step {step_id!r}" if is_id else f"{method}(...)"


def place_of(file: str, line: int) -> str:
    """Return a place for messages: ``shop/orders.py:41``."""
    return f"{'/'.join(file.replace(chr(92), '/').split('/')[-2:])}:{line}"


# --- step methods --------------------------------------------------------------------------------------------------


class _Owner(Protocol):
    _step_calls: StepCalls


def step_method(name: str) -> Callable[[F], F]:
    """Decorate a method that makes a step: its calls are tracked, and errors of wrong calls have their place.

    Args:
        name: The method as users write it: ``step.run``.
    """

    def decorate(method: F) -> F:
        @wraps(method)
        def call(self: _Owner, *args: Any, **options: Any) -> StepCall[Any]:
            frame = sys._getframe(1)
            place = (frame.f_code.co_filename, frame.f_lineno)
            step_id = args[0] if args else options.get("step_id", "")
            try:
                coroutine = method(self, *args, **options)
            except (NonRetryableError, InvalidEventError) as err:
                err.args = (_with_place(str(err), _what(name, step_id), place),)
                raise
            except TypeError:
                if (mismatch := _mismatch(method, self, args, options)) is None:
                    raise
                what = f"{_what(name, step_id)}: " if isinstance(step_id, str) and step_id else ""
                raise InvalidArgumentError(f"{what}{name}() {mismatch} ({place_of(*place)})") from None
            return self._step_calls.add(
                StepCall(coroutine, self._step_calls, name, step_id if isinstance(step_id, str) else "", place)
            )

        return cast(F, call)

    return decorate


def _with_place(message: str, what: str, place: tuple[str, int]) -> str:
    """Return the message of an error with the step's name and the place of the call, each once.

    A message that ends with the place of the step's function keeps that place.
    """
    is_named = what in message or f"{what[:-1]}:" in message or f"{what[:-1]}@" in message  # of a further use
    named = message if is_named else f"{what}: {message}"
    at = place_of(*place)
    if f"({at})" in named:
        return named
    return f"{named[:-1]}, called at {at})" if _ENDS_WITH_PLACE.search(named) else f"{named} ({at})"


def _mismatch(method: Callable[..., Any], self: object, args: tuple[Any, ...], options: dict[str, Any]) -> str | None:
    """Return why arguments do not fit a method; None if they fit."""
    signature = inspect.signature(method)
    unknown = [name for name in options if name not in signature.parameters]
    if unknown:
        known = [name for name in signature.parameters if name != "self"]
        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else f"; it takes {', '.join(known)}"
        return f"does not accept the argument {unknown[0]!r}{hint}"
    try:
        signature.bind(self, *args, **options)
    except TypeError as err:
        taken = [each.replace(annotation=each.empty) for each in signature.parameters.values() if each.name != "self"]
        return f"cannot be called like this: {err}; it takes {inspect.Signature(taken)}"
    return None


def no_such_step(owner: str, name: str, methods: dict[str, str]) -> UnknownStepError:
    """Return the error for a method that does not exist.

    Args:
        owner: ``step`` or ``step.ext``.
        name: The method's name.
        methods: The full names of the existing methods, by name.
    """
    close = methods.get(name) or next(
        (methods[match] for match in difflib.get_close_matches(name, list(methods), 1, 0.7)), None
    )
    hint = f"did you mean {close}?" if close else f"it has {', '.join(methods.values())}"
    frame = sys._getframe(2)  # the caller of __getattr__
    return UnknownStepError(f"{owner} has no {name!r}; {hint} ({place_of(frame.f_code.co_filename, frame.f_lineno)})")
