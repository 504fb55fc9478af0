"""Workflows that factories define, with helpers beside the handlers that use the factory's variables."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import steporal
from steporal import Context, Step, Workflow

client = steporal.Client("factory", max_attempts=1)


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that is not transparent."""

    def inner(*args: Any) -> list[Any]:
        return [1, function(*args)]

    return inner


def make(name: str) -> Workflow[Any, list[Any]]:
    """A workflow of its own for each name; what its steps share cannot be sent anywhere."""
    lock = threading.Lock()

    def helper(amount: int) -> str:
        with lock:
            return f"{name} {amount}"

    async def helper_async(amount: int) -> str:
        return helper(amount)

    shout = lambda amount: helper(amount).upper()  # noqa: E731

    @counted
    def decorated(amount: int) -> str:
        return helper(amount)

    @client.workflow(id=f"factory {name}")
    async def handler(ctx: Context[Any], step: Step) -> list[Any]:
        chosen = helper
        return [
            await step.run("helper", helper, 1),
            await step.run("async", helper_async, 2),
            await step.run("lambda", shout, 3),
            await step.run("decorated", decorated, 4),
            await step.run("partial", functools.partial(helper, 5)),
            await step.run("captured", lambda: chosen(6)),
            await step.run("inside", lambda: helper(7)),
        ]

    return handler


first, second = make("first"), make("second")


# --- what has no name ----------------------------------------------------------------------------------------------

hidden = steporal.Client("hidden", max_attempts=1)


def hiding(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of handlers that forgets ``functools.wraps``."""

    async def inner(ctx: Context[Any], step: Step) -> Any:
        return await function(ctx, step)

    return inner


@counted
def charge(amount: int) -> int:
    return amount


class Service:
    """What is made once, at module level."""

    def charge(self, amount: int) -> int:
        return amount


service = Service()


def plain(amount: int) -> int:
    return amount


def doubled(function: Callable[..., int]) -> Callable[..., int]:
    """A decorator that is transparent."""

    @functools.wraps(function)
    def inner(*args: int) -> int:
        return 2 * function(*args)

    return inner


twice = doubled(plain)


@hidden.workflow(id="another function of that name")
async def another_function(ctx: Context[Any], step: Step) -> int:
    return await step.run("charge", twice, 1)


@hidden.workflow(id="hides a step")
async def hides_a_step(ctx: Context[Any], step: Step) -> Any:
    return await step.run("charge", charge, 1)


@hidden.workflow(id="hides the handler")
@hiding
async def hidden_handler(ctx: Context[Any], step: Step) -> int:
    return await step.run("charge", lambda: 1)


@hidden.workflow(id="method of a global")
async def method_of_a_global(ctx: Context[Any], step: Step) -> int:
    return await step.run("charge", service.charge, 1)
