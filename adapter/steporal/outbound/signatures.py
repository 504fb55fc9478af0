"""Signatures of Standard Webhooks, by the package ``standardwebhooks`` (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime

from ..http import Secret
from .problems import SecretNotFoundError
from .secrets import revealed

_PREFIX = "whsec_"
_SHORTEST, _LONGEST = 24, 64  # bytes, by the specification


def check_secret(value: object) -> None:
    """Check a signing secret, or the name of one.

    Raises:
        ValueError: The value is not a secret of Standard Webhooks; the message does not show it.
    """
    if isinstance(value, Secret):
        return
    if not isinstance(value, str) or not all(map(_is_secret, value.split())) or not value.split():
        raise ValueError(
            f"secret is not in the format of Standard Webhooks; it takes {_PREFIX!r} and the base64 of {_SHORTEST} to "
            f"{_LONGEST} random bytes, or better steporal.secret('NAME')"
        )


def _is_secret(text: str) -> bool:
    if not text.startswith(_PREFIX):
        return False
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        return False
    return _SHORTEST <= len(key) <= _LONGEST


def signatures(secret: str | Secret, *, id: str, at: datetime, body: bytes, what: str) -> str:
    """Return the header ``webhook-signature``: one signature for each secret, as two are in use during a rotation.

    Raises:
        SecretNotFoundError: This process does not have the secret, or its value is not valid.
    """
    from standardwebhooks import Webhook

    value = revealed(secret, what)
    try:
        check_secret(value)
    except ValueError as err:
        name = secret.name if isinstance(secret, Secret) else ""
        raise SecretNotFoundError(
            f"{what} needs the environment variable {name!r}, whose value is not valid: {err}"
        ) from None
    return " ".join(Webhook(one).sign(id, at, body.decode()) for one in value.split())
