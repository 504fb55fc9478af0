"""Secrets, in the process that uses them: an activity's. Nothing here puts a value into a message."""

from __future__ import annotations

import os
import re

from ..http import Secret
from .problems import SecretNotFoundError

_OURS = re.compile(r"TEMPORAL_|STEPORAL_\w+_KEYS$", re.IGNORECASE)
"""Who can write to the namespace could otherwise have the keys sent that keep its values from them."""


def revealed(value: str | Secret, what: str) -> str:
    """A value that may be a secret, as it is sent.

    Args:
        value: Text, which is returned as it is, or the name of an environment variable.
        what: What needs it.

    Raises:
        SecretNotFoundError: This process does not have the variable, or it cannot be sent.
    """
    if isinstance(value, str):
        return value
    if _OURS.match(value.name):
        raise SecretNotFoundError(
            f"{what} asks for {value.name!r}, which is a setting of this worker and is never sent"
        )
    found = os.environ.get(value.name, "")
    if not found:
        raise SecretNotFoundError(
            f"{what} needs the environment variable {value.name!r}, which this worker does not have; "
            "set it where workers start"
        )
    if not found.isascii() or not found.isprintable():
        raise SecretNotFoundError(
            f"{what} needs the environment variable {value.name!r}, whose value has a line break or another character "
            "beyond printable ASCII, which headers and URLs cannot contain"
        )
    return value.prefix + found
