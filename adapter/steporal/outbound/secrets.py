"""Secrets in the process that uses them, an activity's. No message contains the value of a secret."""

from __future__ import annotations

import os
import re

from ..http import Secret
from .problems import SecretNotFoundError

_OURS = re.compile(r"TEMPORAL_|STEPORAL_\w+_KEYS$", re.IGNORECASE)
"""Settings that are never sent. Otherwise, whoever can write to the namespace could request the encryption keys."""


def revealed(value: str | Secret, what: str) -> str:
    """Return the text to send for a value that may be a secret.

    Args:
        value: Text, which is returned unchanged, or the name of an environment variable.
        what: The user of the value, for messages.

    Raises:
        SecretNotFoundError: This process does not have the variable, or its value cannot be sent.
    """
    if isinstance(value, str):
        return value
    if _OURS.match(value.name):
        raise SecretNotFoundError(
            f"{what} requests {value.name!r}, which is a setting of this worker and is never sent"
        )
    secret = os.environ.get(value.name, "")
    if not secret:
        raise SecretNotFoundError(
            f"{what} needs the environment variable {value.name!r}, which this worker does not have; "
            "set it in the environment of the workers"
        )
    if not secret.isascii() or not secret.isprintable():
        raise SecretNotFoundError(
            f"{what} needs the environment variable {value.name!r}, whose value contains a line break or another "
            "character beyond printable ASCII, which headers and URLs cannot contain"
        )
    return value.prefix + secret
