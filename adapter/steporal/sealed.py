"""Values that are encrypted, as those see them who cannot read them: what says so, and with which key.

What encrypts is ``encryption.py``, which is loaded where there are keys.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from temporalio.api.common.v1 import Payload
from temporalio.exceptions import FailureError

from .errors import UnknownKeyError
from .wire.names import KEY_ID_METADATA

if TYPE_CHECKING:
    from temporalio.client import WorkflowExecutionDescription
    from temporalio.converter import DataConverter

ENCODING = b"binary/encrypted"
"""The encoding of an encrypted payload, as in Temporal's own samples."""


ENCRYPTION_KEYS = "STEPORAL_ENCRYPTION_KEYS"
DECRYPTION_KEYS = "STEPORAL_DECRYPTION_KEYS"
"""Environment variables: keys, separated by commas. The first of the former encrypts; all decrypt."""

_MAX_KEY_ID = 64
"""Bytes of a key's id: errors quote it, and who writes to the namespace may have made one of megabytes."""

_noted = threading.local()


def is_sealed(payload: Payload) -> bool:
    """Whether a payload is encrypted."""
    return payload.metadata.get("encoding") == ENCODING


def key_of(payload: Payload) -> str:
    """The id of the key that an encrypted payload needs; of a longer one than any key has, the beginning."""
    return payload.metadata.get(KEY_ID_METADATA, b"")[:_MAX_KEY_ID].decode(errors="replace")


def check_readable(payload: Payload) -> None:
    """Check that a payload, which the codec has had, is not encrypted still.

    Raises:
        UnknownKeyError: It is.
    """
    if is_sealed(payload):
        error = UnknownKeyError(key_of(payload))
        _noted.error = error
        raise error


def check_told(error: BaseException) -> None:
    """Check that the message of an error that Temporal has delivered is not encrypted still.

    Raises:
        UnknownKeyError: It is.
    """
    if isinstance(error, FailureError) and error.failure is not None:
        check_readable(error.failure.encoded_attributes)


def forget_unreadable() -> None:
    """Begin to note what this thread cannot read."""
    _noted.error = None


def unreadable() -> UnknownKeyError | None:
    """What this thread could not read since, whatever has become of the error."""
    error: UnknownKeyError | None = getattr(_noted, "error", None)
    return error


# --- what is stored outside of histories ---------------------------------------------------------------------------


UNREADABLE = "?"
"""What a memo has for a field that cannot be read."""


async def memo_of(described: WorkflowExecutionDescription) -> Mapping[str, Any]:
    """The memo of an execution.

    Anybody who may start workflows can start one with any memo: a field that cannot be read is :data:`UNREADABLE`.

    Raises:
        UnknownKeyError: It is encrypted, and there is not the key.
    """
    memo: dict[str, Any] = {}
    for key, payload in described.raw_description.workflow_execution_info.memo.fields.items():
        try:
            [memo[key]] = await described.data_converter.decode([payload])
        except UnknownKeyError:
            raise
        except (Exception, RecursionError):
            check_readable(payload)  # without a codec, the SDK only says that it does not know the encoding
            memo[key] = UNREADABLE
    return memo


def is_current(converter: DataConverter, payload: Payload) -> bool:
    """Whether a stored payload is as it would be if it were stored now: encrypted or not, and with which key."""
    codec = converter.payload_codec
    if codec is None:
        return not is_sealed(payload)
    is_current = getattr(codec, "is_current", None)  # of an EncryptionCodec, whose module is loaded where there is one
    return is_current is None or bool(is_current(payload))


def encrypts(converter: DataConverter | None) -> bool:
    """Return whether what a data converter sends is encrypted, so that secrets may be in it.

    Steporal's own codec says so if it has a key that encrypts. A codec of the user's own says so by an attribute
    ``encrypts = True``.
    """
    return converter is not None and bool(getattr(converter.payload_codec, "encrypts", False))
