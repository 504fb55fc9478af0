"""Result of a run: JSON that any program can read, and the exact value beside it where JSON cannot express it.

A Temporal client in any language reads the result of a handler that returns a model as pydantic writes it. If the
handler's annotation makes the same value of that JSON, nothing more is sent. Otherwise the exact value is stored in the
metadata of the same payload, which SDKs ignore and codecs encrypt with the rest. Temporal's CLI shows the JSON of a
payload only if the payload has no additional metadata, so the metadata is only added where it is needed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import pydantic
from temporalio.common import RawValue

from ..errors import InvalidResultError, PayloadTooLargeError, UnencryptedSecretError, UnserializableError
from ..types import JSON
from ..values.annotated import same
from ..values.converter import dumps, issues, size_of, to_json, to_raw, validate
from ..values.decoding import decode, validated
from ..values.encoding import TAG, encode, is_unchanged
from ..values.fitting import fits
from ..values.packed import MAX_UNPACKED_BYTES, unpack_json
from ..values.readable import is_plain, plain, readable
from ..values.type_names import TypeNotFoundError
from .limits import to_limited, too_large
from .names import EXACT_METADATA
from .packed_size import SURELY_FITS_BYTES
from .run_state import packed_outcome
from .start import payload_json
from .storage import StorageOfRun

RETURNED = "returned"
"""Tag of an invoked run's result in the memo of the invoking run."""

ToLimited = Callable[[JSON, bytes | None], RawValue]
"""Function that makes a payload of JSON and the exact value as JSON, and raises if the payload is too large."""


@dataclass(frozen=True, slots=True)
class Returned:
    """Result of a run.

    Attributes:
        data: The result as plain JSON.
        exact: The result, encoded, if plain JSON does not express all of it.
    """

    data: JSON
    exact: JSON = None

    def as_json(self) -> JSON:
        """Return the result for a run's memo."""
        if self.exact is not None:
            return {TAG: RETURNED, "value": self.data, "exact": self.exact}
        if isinstance(self.data, dict) and TAG in self.data:
            return {TAG: RETURNED, "value": self.data}
        return self.data


def write_result(
    value: Any, kind: Any, to_limited: ToLimited, secrets: Callable[[], bool], packages: Collection[str]
) -> RawValue:
    """Return the result of a handler as a payload.

    Args:
        value: What the handler returned.
        kind: The annotated result type, or None.
        to_limited: Makes the payload.
        secrets: Returns whether payloads are encrypted.
        packages: The app's packages.

    Raises:
        UnserializableError: The result cannot be sent.
        PayloadTooLargeError: The result is too large.
    """
    try:
        encoded = encode(value, secrets=secrets, packages=packages)
    except UnencryptedSecretError:
        raise
    except UnserializableError:
        data = _faithful(value, kind)
        if data is None:
            raise
        return to_limited(data, None)
    if is_unchanged(encoded, value):
        return to_limited(encoded, None)
    data = readable(value, encoded, kind)
    if _says_all(data, kind, encoded, secrets):
        return to_limited(data, None)
    text = dumps(encoded)
    if len(text) > MAX_UNPACKED_BYTES:
        raise PayloadTooLargeError(f"its exact value has {len(text):,} bytes; the maximum is {MAX_UNPACKED_BYTES:,}")
    return to_limited(data, text)


def limited_result(what: str, data: JSON, exact: bytes | None, storage: StorageOfRun) -> RawValue:
    """Return the payload of a result.

    Args:
        what: Name of the result, for messages.
        data: The result as plain JSON.
        exact: The exact value as JSON, if plain JSON does not express all of it.
        storage: External storage of the run.

    Raises:
        PayloadTooLargeError: The result is too large.
    """
    if exact is None:
        return to_limited(what, data, storage.size_limit)
    packed = zlib.compress(exact)
    raw = to_raw(data, {EXACT_METADATA: packed})
    size, plain = size_of(raw), size_of(raw) + len(exact)
    beside = len(packed)
    if (
        plain > SURELY_FITS_BYTES and not storage.is_available()
    ):  # a run that has invoked this one may be handed all of it
        outcome = to_raw(packed_outcome([Returned(data, json.loads(exact)).as_json()], is_stored=False))
        beside = max(beside, size_of(outcome) - size)
    if not storage.is_too_large_packed(size + beside, plain):
        return raw
    raise too_large(what, size, beside, storage.size_limit(plain))


def read_result(raw: RawValue | JSON, to_json: Callable[[RawValue | JSON], JSON] = payload_json) -> Returned:
    """Return the content of a result's payload.

    Args:
        raw: The payload, or the value that Temporal's SDK decoded from it.
        to_json: Reads the JSON of a payload.

    Raises:
        InvalidResultError: The payload has an exact value that cannot be read.
    """
    data = to_json(raw)
    exact = raw.payload.metadata.get(EXACT_METADATA) if isinstance(raw, RawValue) else None
    return Returned(data) if exact is None else Returned(data, _unpacked(exact))


def _unpacked(exact: bytes) -> JSON:
    try:
        return unpack_json(exact)
    except ValueError as err:
        raise InvalidResultError(f"the exact value of a result cannot be read: {err}") from None


def of_memo(value: JSON) -> Returned:
    """Return the result that :meth:`Returned.as_json` wrote."""
    if isinstance(value, dict) and value.get(TAG) == RETURNED:
        return Returned(value["value"], value.get("exact"))
    return Returned(value)


def value_of(returned: Returned, where: str, output_type: Any, *, is_own: bool, packages: Collection[str] = ()) -> Any:
    """Return the value that a handler returned.

    Args:
        returned: The result that the run sent.
        where: The run, for messages.
        output_type: The type that the reader requests, or None.
        is_own: Whether the workflow belongs to the reader's app, so that the reader has its classes.
        packages: The packages of the workflow's app.

    Raises:
        InvalidResultError: The result does not fit, or the reader does not have its class.
    """
    try:
        if not is_own or returned.exact is None:
            if output_type is None:
                return returned.data
            return _as_own(returned.data, output_type) if is_own else validate(returned.data, output_type)
        try:
            value = decode(returned.exact, packages=packages)
        except TypeNotFoundError:
            if output_type is None:
                raise
            value = plain(returned.exact, reveal=True)
        is_typed = output_type is None or fits(value, output_type)
        return value if is_typed else validated(value, returned.exact, output_type)
    except TypeNotFoundError as err:
        raise InvalidResultError(f"the result of {where} cannot be read here: {err}") from None
    except pydantic.ValidationError as err:
        raise InvalidResultError(f"the result of {where} does not fit {output_type!r}: {issues(err)}") from None


def _as_own(data: JSON, kind: Any) -> Any:
    """Return plain JSON as the workflow's app reads it: the JSON may already be of the annotated type."""
    return data if fits(data, kind) else validate(data, kind)


def _says_all(data: JSON, kind: Any, encoded: JSON, secrets: Callable[[], bool]) -> bool:
    """Return whether plain JSON and the annotated type together give a reader the same value.

    The texts are compared, because in Python ``1 == 1.0 == True``, and dicts are equal in any order.
    """
    try:
        return kind is not None and dumps(encode(_as_own(data, kind), secrets=secrets)) == dumps(encoded)
    except Exception:  # for example from a validator
        return False


def _faithful(value: Any, kind: Any) -> JSON | None:
    """Return plain JSON for a value whose class has no name, if the annotated type makes the same value of it."""
    if kind is None:
        return None
    try:
        data = to_json(value, kind)
        return data if is_plain(data) and same(_as_own(data, kind), value) else None
    except Exception:  # for example from a validator or an __eq__
        return None
