"""Errors for wrong calls of ``@client.workflow``, more helpful than Python's "unexpected keyword argument"."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, ParamSpec, TypeVar

from .errors import DefinitionError

_OPTIONS = ("id", "input_schema", "triggers", "max_attempts", "retry", "ext")

_OTHER_NAMES = {
    "retries": "max_attempts=..., which counts the first attempt, too: retries=3 is max_attempts=4",
    "max_retries": "max_attempts=..., which counts the first attempt, too: max_retries=3 is max_attempts=4",
    "fn_id": "id=...",
    "name": "id=...",
    "trigger": "triggers=[...], a list",
    "input": "input_schema=...",
    "schema": "input_schema=...",
    "retry_policy": "retry=...",
    "cancel": "ext=WorkflowExt(cancel_on=[CancelOn(event=...)])",
    "cancel_on": "ext=WorkflowExt(cancel_on=[CancelOn(event=...)])",
    "on_failure": "ext=WorkflowExt(on_failure=...)",
    "park_after": "ext=WorkflowExt(park_after=...)",
}
"""Names that Inngest, Temporal or users' guesses give to options, and the options to use."""


P = ParamSpec("P")
T = TypeVar("T")


def explained(method: Callable[P, T]) -> Callable[P, T]:
    """Check the arguments of ``Client.workflow`` before it is called."""

    @functools.wraps(method)
    def checked(*arguments: P.args, **options: P.kwargs) -> T:
        unknown = [name for name in options if name not in _OPTIONS]
        if len(arguments) > 1 or unknown or "id" not in options:
            _refuse(arguments[1:], unknown, has_id="id" in options)
        return method(*arguments, **options)

    return checked


def _refuse(positional: Sequence[Any], unknown: Sequence[str], *, has_id: bool) -> NoReturn:
    if unknown:
        name = unknown[0]
        raise DefinitionError(f"@client.workflow has no option {name!r}; {_instead(name)}")
    if positional and callable(positional[0]):
        handler = getattr(positional[0], "__name__", "handler")
        example = handler.replace("_", "-")
        raise DefinitionError(
            f"@client.workflow on {handler!r} has no arguments; pass an id for the workflow: "
            f"@client.workflow(id={example!r})"
        )
    if positional:
        first = positional[0]
        name = "input_schema" if has_id else "id"
        raise DefinitionError(
            f"@client.workflow takes only keyword arguments, but received {first!r}; write {name}={first!r}"
        )
    raise DefinitionError("@client.workflow has no id; pass one that is unique in the app: id='process-order'")


def _instead(name: str) -> str:
    if name in _OTHER_NAMES:
        return f"write {_OTHER_NAMES[name]}"
    close = difflib.get_close_matches(name, _OPTIONS, n=1)
    return f"did you mean {close[0]!r}?" if close else f"its options are {', '.join(_OPTIONS)}"
