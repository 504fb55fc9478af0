"""What ends a command with a message and an exit status instead of a traceback.

0: done. 1: an operation failed. 2: the command, its arguments or the configuration are wrong. 130: interrupted.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from typing import IO, Any, TypeVar

import click

from .logs import is_json, say_as_log

T = TypeVar("T")


class Failure(click.ClickException):
    """An operation failed."""

    exit_code = 1

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the details, if any, and then the message, on standard error."""
        if is_json():
            say_as_log(self.format_message(), level=logging.ERROR, details=self.details)
            return
        if self.details:
            click.echo(self.details.rstrip("\n"), file=file, err=True)
        label = click.style("error:", fg="red", bold=True)
        click.echo(f"{label} {self.format_message()}", file=file, err=True, color=_colour())


class Mistake(Failure):
    """The command's arguments, or the configuration, cannot be right."""

    exit_code = 2


def _colour() -> bool | None:
    return False if os.environ.get("NO_COLOR") else None


def perform(operation: Coroutine[Any, Any, T]) -> T:
    """Run a command's operation, and turn what it raises into a message and an exit status."""
    from temporalio.service import RPCError

    import steporal

    from .devserver import DevServerError

    try:
        return asyncio.run(operation)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    except steporal.RunFailedError as err:
        raise Failure(str(err), err.stack) from err
    except (
        steporal.InvalidArgumentError,
        steporal.InvalidEventError,
        steporal.DefinitionError,
        steporal.UnknownKeyError,
        steporal.InvalidInputError,
    ) as err:
        raise Mistake(str(err)) from err
    except (steporal.SteporalError, DevServerError) as err:
        raise Failure(str(err)) from err
    except RPCError as err:
        raise Failure(f"Temporal refused: {err.message} ({err.status.name})") from err
