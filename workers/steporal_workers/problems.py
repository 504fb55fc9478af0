"""Errors that end a command with a message and an exit status instead of a traceback.

0: done. 1: an operation failed. 2: the command, its arguments or the configuration are wrong. 130: interrupted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
from collections.abc import Coroutine
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from .escaping import printable
from .logs import is_json, say_as_log
from .stacks import own_place

if TYPE_CHECKING:
    from steporal import RunFailedError
    from steporal.operations.errors import OperationError

T = TypeVar("T")


class Failure(click.ClickException):
    """Failure of an operation.

    Args:
        message: The failure and its remedy.
        details: Lines to print above the message.
        below: Lines to print below the message.
    """

    exit_code = 1

    def __init__(self, message: str, details: str = "", below: str = "") -> None:
        super().__init__(message)
        self.details = details
        self.below = below

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message on standard error, between the details and the lines below."""
        if is_json():
            say_as_log(self.format_message(), level=logging.ERROR, details=self.details or self.below)
            return
        if self.details:
            click.echo(printable(self.details.rstrip("\n")), file=file, err=True)
        label = click.style("error:", fg="red", bold=True)
        click.echo(f"{label} {printable(self.format_message())}", file=file, err=True, color=_colour())
        if self.below:
            click.echo(printable(self.below.rstrip("\n")), file=file, err=True)


class Mistake(Failure):
    """Arguments or configuration that are not valid."""

    exit_code = 2


def missing(error: ModuleNotFoundError, extra: str) -> Mistake:
    """Return the error for a command whose extra is not installed."""
    return Mistake(f"{error.name!r} is not installed: pip install 'steporal[{extra}]'")


class FailedRun(Failure):
    """Failure of a run, in five lines: the error, the user's own line of code, the step, and how to see the rest."""

    def __init__(self, error: RunFailedError) -> None:
        step = error.step
        stack = step.stack if step is not None else error.stack
        name, message = (error.name, error.message) if step is None else (step.name, step.message)
        place = own_place(stack)
        lines = place.lines if place else []
        if step is not None:
            lines.append(f"  step {step.step_id!r} failed{_after(step.attempts)}")
        elif error.attempts:
            lines.append(f"  the body failed{_after(error.attempts)}")
        if place is not None:
            lines.append(f"  all lines: steporal runs show {shlex.quote(error.workflow_id)} --stack")
        is_cancelled = error.name == "CancelledError"
        text = str(error) if is_cancelled else f"run {error.workflow_id!r} failed: {name}: {message}"
        super().__init__(text, below="\n".join(lines))


def _after(attempts: int) -> str:
    return f" after {attempts} attempt{'s' * (attempts != 1)}" if attempts else ""


def failed_run_json(error: RunFailedError) -> dict[str, Any]:
    """Return the error of a failed run, for ``--json``."""
    step = error.step
    return {
        "name": error.name,
        "message": error.message,
        "stack": error.stack,
        "attempts": error.attempts,
        "step": None
        if step is None
        else {
            "id": step.step_id,
            "name": step.name,
            "message": step.message,
            "stack": step.stack,
            "attempts": step.attempts,
        },
    }


def _colour() -> bool | None:
    return False if os.environ.get("NO_COLOR") else None


def in_flags(error: OperationError) -> Failure:
    """Return the error of an operation in the words of the command line, which names flags."""
    from steporal.durations import format_duration
    from steporal.operations import errors

    match error:
        case errors.QueryRefusedError():
            return Failure(f"Temporal does not accept --where {error.where!r}: {error.reason}")
        case errors.TooLargeError():
            return Failure(f"{error}, without --from")
        case errors.UnindexedEventError():
            return Mistake(
                f"--event needs search attributes, which namespace {error.namespace!r} does not have; "
                "`steporal setup` registers them, for runs that start from then on"
            )
        case errors.HoldTooShortError():
            hold, timeout = format_duration(error.hold), format_duration(error.timeout)
            return Mistake(
                f"--hold {hold} is not longer than --timeout {timeout}: runs would resume before all are parked"
            )
        case errors.RequestError():
            return Mistake(str(error))
        case _:
            return Failure(str(error))


def perform(operation: Coroutine[Any, Any, T]) -> T:
    """Run a command's operation, and turn its exceptions into a message and an exit status."""
    from temporalio.service import RPCError, RPCStatusCode

    import steporal
    from steporal.operations.errors import OperationError

    from .devserver import DevServerError

    try:
        return asyncio.run(operation)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    except steporal.RunFailedError as err:
        raise FailedRun(err) from err
    except (
        steporal.InvalidArgumentError,
        steporal.InvalidEventError,
        steporal.DefinitionError,
        steporal.UnknownKeyError,
        steporal.InvalidInputError,
    ) as err:
        raise Mistake(str(err)) from err
    except OperationError as err:
        raise in_flags(err) from err
    except (steporal.SteporalError, DevServerError) as err:
        raise Failure(str(err)) from err
    except RPCError as err:
        if err.status == RPCStatusCode.UNAVAILABLE:
            raise Failure(f"Temporal no longer answers ({err.message}); check that the server runs") from err
        raise Failure(f"Temporal refused: {err.message} ({err.status.name})") from err
