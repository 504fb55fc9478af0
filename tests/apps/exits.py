"""Bodies that would end a program, or raise errors that cannot be shown."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from temporalio.exceptions import ApplicationError

import steporal
from steporal import Context, Step

client = steporal.Client("exits", max_attempts=1)


class Abort(BaseException):
    """An error of the app that is no ``Exception``."""


class Odd(Exception):
    def __str__(self) -> str:
        raise TypeError("cannot be shown")


UNDECODABLE = "r\udce9sum\udce9.pdf"


def leave(error: BaseException) -> NoReturn:
    raise error


def with_cause(error: BaseException, cause: BaseException) -> NoReturn:
    raise error from cause


EXITS: dict[str, Callable[[], Any]] = {
    "SystemExit with 2": lambda: sys.exit(2),
    "SystemExit with 'no config'": lambda: sys.exit("no config"),
    "SystemExit": lambda: sys.exit(),
    "KeyboardInterrupt": lambda: leave(KeyboardInterrupt()),
    "GeneratorExit": lambda: leave(GeneratorExit()),
    "Abort": lambda: leave(Abort()),
    "BaseExceptionGroup of KeyboardInterrupt, ValueError": lambda: leave(
        BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError()])
    ),
}

ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "an undecodable file name": (lambda: leave(OSError(UNDECODABLE)), r"OSError: r\udce9sum\udce9.pdf"),
    "no text": (lambda: leave(Odd()), "Odd: (the text of this Odd is unknown: its __str__ raised TypeError)"),
    "no text in a group": (lambda: leave(ExceptionGroup("all", [Odd()])), "ExceptionGroup: all: Odd: (the text of "),
    "a cause without text": (lambda: with_cause(ValueError("no"), Odd()), "ValueError: no"),
    "an undecodable cause": (lambda: with_cause(ValueError("no"), OSError(UNDECODABLE)), "ValueError: no"),
    "an error of Temporal's": (lambda: leave(ApplicationError(UNDECODABLE, type="Own")), r"Own: r\udce9sum"),
    "details that are not JSON": (lambda: leave(ApplicationError("no", object(), type="Own")), "Own: no"),
}


@client.workflow(id="exits")
async def exits(ctx: Context[Any], step: Step) -> None:
    await step.run("before", lambda: None)
    EXITS[ctx.input.data]()


@client.workflow(id="exits in a task")
async def exits_in_a_task(ctx: Context[Any], step: Step) -> None:
    async def task() -> None:
        await step.run("in the task", lambda: None)
        EXITS[ctx.input.data]()

    await asyncio.gather(task(), step.run("beside it", lambda: None))


@client.workflow(id="exits in a callback")
async def exits_in_a_callback(ctx: Context[Any], step: Step) -> None:
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    await step.run("after", lambda: None)


@client.workflow(id="raises")
async def raises(ctx: Context[Any], step: Step) -> None:
    ERRORS[ctx.input.data][0]()


@client.workflow(id="step raises")
async def step_raises(ctx: Context[Any], step: Step) -> list[Any]:
    name = ctx.input.data
    try:
        await step.run("step", lambda: ERRORS[name][0]())
    except steporal.StepError as err:
        return [f"{err.name}: {err.message}", err.attempts]
    return []


@client.workflow(id="innocent")
async def innocent(ctx: Context[Any], step: Step) -> str:
    return await step.run("step", lambda: "ok")
