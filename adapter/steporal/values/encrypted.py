"""Encrypted values as they appear to readers without the key: their marker, and the id of their key.

``encryption.py``, which encrypts, is only loaded if keys exist.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from temporalio.api.common.v1 import Payload
from temporalio.exceptions import FailureError

from ..errors import UnknownKeyError
from ..wire.names import KEY_ID_METADATA

if TYPE_CHECKING:
    from temporalio.client import WorkflowExecutionDescription
    from temporalio.converter import DataConverter

ENCODING = b"binary/encrypted"
"""Encoding of an encrypted payload, as in Temporal's own samples."""


ENCRYPTION_KEYS = "STEPORAL_ENCRYPTION_KEYS"
DECRYPTION_KEYS = "STEPORAL_DECRYPTION_KEYS"
"""Environment variables with keys, separated by commas. The first encryption key encrypts; all keys decrypt."""

_MAX_KEY_ID = 64
"""Bytes of a key's id: errors quote it, and who writes to the namespace may have made one of megabytes."""

_noted = threading.local()


def is_sealed(payload: Payload) -> bool:
    """Return whether a payload is encrypted."""
    return payload.metadata.get("encoding") == ENCODING


def key_of(payload: Payload) -> str:
    """Return the id of the key that an encrypted payload needs; of an id that is too long, the beginning."""
    return payload.metadata.get(KEY_ID_METADATA, b"")[:_MAX_KEY_ID].decode(errors="replace")


def check_readable(payload: Payload) -> None:
    """Check that a payload is no longer encrypted after the codec.

    Raises:
        UnknownKeyError: The payload is still encrypted.
    """
    if is_sealed(payload):
        error = UnknownKeyError(key_of(payload))
        _noted.error = error
        raise error


def check_failure_decrypted(error: BaseException) -> None:
    """Check that the message of an error that Temporal delivered is no longer encrypted.

    Raises:
        UnknownKeyError: The message is still encrypted.
    """
    if isinstance(error, FailureError) and error.failure is not None:
        check_readable(error.failure.encoded_attributes)


def forget_unreadable() -> None:
    """Clear the note of what this thread could not read."""
    _noted.error = None


def unreadable() -> UnknownKeyError | None:
    """Return the error of what this thread could not read since the note was cleared, even if the error was caught."""
    error: UnknownKeyError | None = getattr(_noted, "error", None)
    return error


# --- values stored outside of histories ----------------------------------------------------------------------------


UNREADABLE = "?"
"""Value for memo fields that cannot be read."""


async def memo_of(described: WorkflowExecutionDescription) -> Mapping[str, Any]:
    """Return the memo of an execution.

    Anybody who may start workflows can start one with any memo. A field that cannot be read is :data:`UNREADABLE`.

    Raises:
        UnknownKeyError: A field is encrypted, and its key is missing.
    """
    memo: dict[str, Any] = {}
    for key, payload in described.raw_description.workflow_execution_info.memo.fields.items():
        try:
            [memo[key]] = await described.data_converter.decode([payload])
        except UnknownKeyError:
            raise
        except (Exception, RecursionError):
            check_readable(payload)  # without a codec, the SDK only reports an unknown encoding
            memo[key] = UNREADABLE
    return memo


def is_current(converter: DataConverter, payload: Payload) -> bool:
    """Return whether a stored payload has the form that it would be stored in now: encryption and key."""
    codec = converter.payload_codec
    if codec is None:
        return not is_sealed(payload)
    is_current = getattr(codec, "is_current", None)  # of an EncryptionCodec, whose module is only loaded with keys
    return is_current is None or bool(is_current(payload))


def encrypts(converter: DataConverter | None) -> bool:
    """Return whether a data converter encrypts what it sends, so that values may contain secrets.

    Steporal's own codec encrypts if it has an encryption key. A user's codec declares it by an attribute
    ``encrypts = True``.
    """
    return converter is not None and bool(getattr(converter.payload_codec, "encrypts", False))
