"""Activities of steps, as histories show them."""

from __future__ import annotations

from typing import Final

from ..types import JSON

BEFORE: Final = "before"
"""Key in the argument of a step's activity for the attempts that the step has had in earlier activities."""
LAST: Final = "last"
"""Key in that record: whether the step has one attempt left, so that its worker lets the server record that it begins.

The run says so, as an operator can change the attempts that Temporal makes of an activity.
"""


def is_activity_of(step_id: str, activity_id: str) -> bool:
    """Return whether an activity may belong to a step, by its id."""
    name, _, number = activity_id.rpartition("#")
    return activity_id == step_id or (name == step_id and number.isdecimal())


def attempts_before(argument: JSON) -> int:
    """Return the number of attempts that a step has had before an activity with this argument."""
    before = argument.get(BEFORE) if isinstance(argument, dict) else None
    return int(before["attempts"]) if before else 0
