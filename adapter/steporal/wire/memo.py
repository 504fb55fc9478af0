"""Memo of a run: the results or errors of its finished steps, by step id."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from ..closures.calls import Call
from ..errors import InvokeTimeoutError, SignalConflictError, StepError
from ..types import JSON
from ..values.converter import return_type, validate
from ..values.decoding import decode, validated
from ..values.encoding import TAG
from ..values.fitting import fits
from ..values.readable import plain
from ..values.type_names import TypeNotFoundError

TYPED = "typed"
"""Tag of a result that only the annotation of its function describes."""


_KINDS = {kind.__name__: kind for kind in (InvokeTimeoutError, SignalConflictError)}


@dataclass(frozen=True, slots=True)
class Failure:
    """Error of a step that failed for good."""

    name: str
    message: str
    stack: str = ""
    attempts: int = 0
    cause: BaseException | None = None

    def error(self, step_id: str) -> StepError:
        """Return a new error to raise."""
        kind = _KINDS.get(self.name, StepError)
        error = kind(step_id, self.name, self.message, self.stack, self.attempts)
        error.__cause__ = self.cause
        return error


@dataclass(frozen=True, slots=True)
class Outcome:
    """End of a step: an encoded value, or a failure.

    Attributes:
        value: The value.
        failure: The failure.
        call: The call of the step, if known.
    """

    value: JSON = None
    failure: Failure | None = None
    call: Call | None = field(default=None, compare=False)


Memo = dict[str, Outcome]
"""Finished steps of a run, by step id, in the order in which they finished."""


def decode_result(data: JSON, function: Callable[..., Any], output_type: Any, packages: Collection[str]) -> Any:
    """Return a step's result.

    Args:
        data: The result as the activity returned it.
        function: The step's function, whose annotations may name the type.
        output_type: The type that the call requests, or None.
        packages: The app's packages.

    Raises:
        pydantic.ValidationError: The result does not fit ``output_type``.
    """
    if isinstance(data, dict) and data.get(TAG) == TYPED:
        return validate(data["value"], _wanted(function, output_type))
    try:
        value = decode(data, packages=packages)
    except TypeNotFoundError:
        if (kind := _wanted(function, output_type)) is None:
            raise
        return validated(plain(data, reveal=True), data, kind)  # the class has been moved or renamed
    if output_type is None or fits(value, output_type):
        return value
    return validated(value, data, output_type)


def _wanted(function: Callable[..., Any], output_type: Any) -> Any:
    return return_type(function) if output_type is None else output_type
