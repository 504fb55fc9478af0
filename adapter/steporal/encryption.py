"""Encryption of all values that Temporal stores: a payload codec that uses AES-256-GCM, with keys that can be rotated.

Each payload is encrypted as a whole, including its metadata. The result has the format of Temporal's own samples: the
encoding ``binary/encrypted``, the key's id in ``encryption-key-id``, and as data a random nonce of 96 bits followed by
the ciphertext.

Commands read their keys from settings, and so does a client that makes its own connection. An app that makes its own
connection passes the data converter::

    temporal = await temporalio.client.Client.connect(..., data_converter=steporal.encryption.data_converter())
    client = steporal.Client("shop", temporal=temporal)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, cast

from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.converter import (
    DataConverter,
    FailureConverter,
    PayloadCodec,
    PayloadConverter,
    SerializationContext,
    WithSerializationContext,
)
from temporalio.exceptions import ApplicationError

from .errors import DefinitionError, EncryptionError, UnknownKeyError
from .values.encrypted import DECRYPTION_KEYS, ENCODING, ENCRYPTION_KEYS, is_sealed, key_of
from .wire.names import KEY_ID_METADATA

__all__ = ["EncryptionCodec", "Key", "Keys", "data_converter", "new_key"]

KEY_BYTES = 32
NONCE_BYTES = 12

_MIN_DISTINCT = 12
"""Number of distinct bytes that a random key exceeds: some 30 of 32 random bytes are distinct."""

_NULL = b"binary/null"
"""Encoding of null. Temporal removes a memo value or search attribute if it can see that the value is null."""

_UNREAD = "Failed decoding "
"""Start of the SDK's message about an activity whose arguments it cannot read."""

_FAILURE = "Encoded failure"
"""Text that Temporal's SDKs write in place of an encoded message."""


# --- keys ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """Encryption key.

    Attributes:
        id: The id that payloads name the key by: the start of a digest, which reveals nothing about the key.
        secret: The key's 32 bytes.
    """

    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Key:
        """Parse a key as :func:`new_key` writes it: 32 bytes in Base64 or URL-safe Base64, with or without padding.

        Raises:
            ValueError: The text is not a valid key; the message does not show it.
        """
        plain = text.strip().replace("-", "+").replace("_", "/").rstrip("=")
        try:
            secret = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("it is not valid Base64; `steporal encryption new-key` makes one") from None
        if len(secret) != KEY_BYTES:
            raise ValueError(f"it has {len(secret)} bytes, not {KEY_BYTES}; `steporal encryption new-key` makes one")
        if len(set(secret)) < _MIN_DISTINCT:
            raise ValueError("its bytes are not random; `steporal encryption new-key` makes one")
        return cls(hashlib.sha256(b"steporal encryption key\0" + secret).hexdigest()[:8], secret)


def new_key() -> str:
    """Return a new random key in URL-safe Base64."""
    while True:
        text = base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode().rstrip("=")
        if not text.startswith("-"):  # a shell would take it for an option
            return text


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of a process.

    Attributes:
        encryption: Keys for encryption: the first encrypts, and all decrypt. If empty, nothing is encrypted.
        decryption: Further keys that decrypt.
    """

    encryption: tuple[Key, ...] = ()
    decryption: tuple[Key, ...] = ()

    @classmethod
    def of(cls, encryption: Iterable[str] = (), decryption: Iterable[str] = ()) -> Keys:
        """Return keys from texts as :func:`new_key` writes them.

        Raises:
            DefinitionError: A key is not valid.
        """
        return cls(_parsed(ENCRYPTION_KEYS, encryption), _parsed(DECRYPTION_KEYS, decryption))

    @classmethod
    def of_environment(cls) -> Keys:
        """Return the keys in ``STEPORAL_ENCRYPTION_KEYS`` and ``STEPORAL_DECRYPTION_KEYS``, separated by commas.

        Raises:
            DefinitionError: A key is not valid, or a variable is set but empty.
        """
        return cls.of(*(_of_variable(name) for name in (ENCRYPTION_KEYS, DECRYPTION_KEYS)))

    def __bool__(self) -> bool:
        return bool(self.encryption or self.decryption)

    def __iter__(self) -> Iterator[Key]:
        return iter((*self.encryption, *self.decryption))


def _of_variable(name: str) -> list[str]:
    text = os.environ.get(name)
    if text is None:
        return []
    parts = [part for part in text.split(",") if part.strip()]
    if not parts:  # losing the keys must not turn encryption off
        raise DefinitionError(f"{name} is set but contains no key; set it to one or more keys, separated by commas")
    return parts


def _parsed(name: str, texts: Iterable[str]) -> tuple[Key, ...]:
    keys = []
    for number, text in enumerate(texts, 1):
        try:
            keys.append(Key.parse(text))
        except ValueError as err:
            raise DefinitionError(f"{name}: key {number} is not valid: {err}") from None
    return tuple(keys)


# --- the codec -----------------------------------------------------------------------------------------------------


class EncryptionCodec(PayloadCodec, WithSerializationContext):
    """Encrypts payloads, and decrypts those that are encrypted; other payloads pass unchanged.

    Args:
        keys: The keys.
        inside: Another codec whose output is encrypted, such as compression, which has no effect on encrypted data.

    Raises:
        DefinitionError: The package ``cryptography`` is not installed.
    """

    def __init__(self, keys: Keys, inside: PayloadCodec | None = None) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ModuleNotFoundError as err:
            missing = f"{(err.name or '').partition('.')[0]!r} is not installed, and encryption needs it"
            raise DefinitionError(f"{missing}: pip install 'steporal[encryption]'") from None
        self.keys = keys
        self._inside = inside
        self._ciphers = {key.id: AESGCM(key.secret) for key in keys}
        self._wrong = InvalidTag
        self._first = keys.encryption[0].id if keys.encryption else None

    def with_context(self, context: SerializationContext) -> EncryptionCodec:
        """See base class."""
        inside: Any = self._inside
        if not isinstance(inside, WithSerializationContext):
            return self
        codec = copy(self)
        codec._inside = cast(PayloadCodec, inside.with_context(context))
        return codec

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """See base class."""
        if self._inside is not None:
            payloads = await self._inside.encode(payloads)
        return list(payloads) if self._first is None else [self._seal(payload, self._first) for payload in payloads]

    @property
    def encrypts(self) -> bool:
        """True if payloads are encrypted; False with decryption keys only."""
        return self._first is not None

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """See base class.

        Raises:
            UnknownKeyError: The key of a payload is missing.
            EncryptionError: A payload was changed after it was encrypted.
        """
        opened = [self._open(payload) if is_sealed(payload) else payload for payload in payloads]
        return opened if self._inside is None else await self._inside.decode(opened)

    def is_current(self, payload: Payload) -> bool:
        """Return whether a stored payload has the form that it would be stored in now."""
        if is_sealed(payload):
            return key_of(payload) == self._first
        return self._first is None or bool(payload.external_payloads)

    def _seal(self, payload: Payload, key: str) -> Payload:
        if payload.metadata.get("encoding") == _NULL:
            return payload
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = self._ciphers[key].encrypt(nonce, payload.SerializeToString(), None)
        return Payload(metadata={"encoding": ENCODING, KEY_ID_METADATA: key.encode()}, data=nonce + sealed)

    def _open(self, payload: Payload) -> Payload:
        id = key_of(payload)
        cipher = self._ciphers.get(id)
        if cipher is None:
            raise UnknownKeyError(id)
        try:
            return Payload.FromString(cipher.decrypt(payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:], None))
        except (self._wrong, ValueError, DecodeError):
            raise EncryptionError(
                f"a value has changed since it was encrypted with key {id!r}: it was tampered with, or is damaged"
            ) from None


# --- the data converter --------------------------------------------------------------------------------------------


def data_converter(keys: Keys | None = None, base: DataConverter = DataConverter.default) -> DataConverter:
    """Return a data converter that encrypts, for ``temporalio.client.Client.connect`` or ``steporal.Client``.

    Args:
        keys: The keys; by default, those of the environment. Without keys, ``base`` is returned.
        base: The data converter to extend: its codec runs before encryption, its external storage after it. Messages
            and stack traces that its failure converter writes are encrypted, too.

    Raises:
        DefinitionError: A key is not valid, ``base`` encrypts with other keys, or ``cryptography`` is not installed.
    """
    keys = Keys.of_environment() if keys is None else keys
    if not keys:
        return base
    if isinstance(base.payload_codec, EncryptionCodec):
        if base.payload_codec.keys == keys:
            return base
        raise DefinitionError(
            f"the data converter already encrypts, with other keys than those in {ENCRYPTION_KEYS} and "
            f"{DECRYPTION_KEYS}: use only one of them"
        )
    codec = EncryptionCodec(keys, base.payload_codec)
    failures = sealing(base.failure_converter_class) if keys.encryption else base.failure_converter_class
    return replace(base, payload_codec=codec, failure_converter_class=failures)


@lru_cache
def sealing(base: type[FailureConverter]) -> type[FailureConverter]:
    """Return a failure converter whose messages and stack traces are payloads, so that a codec encrypts them.

    Temporal's own failure converter can do that, too, but not for causes that arrive in clear text.

    Args:
        base: The class that converts errors.
    """

    class SealingFailureConverter(FailureConverter):
        def __init__(self) -> None:
            self._base = base()

        def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
            self._base.to_failure(exception, payload_converter, failure)
            if not _is_of_keys(exception):
                _seal(failure, payload_converter)

        def from_failure(self, failure: Failure, payload_converter: PayloadConverter) -> BaseException:
            return self._base.from_failure(failure, payload_converter)

    return SealingFailureConverter


def _is_of_keys(error: BaseException) -> bool:
    """Return whether an error only reports a missing key: its readers do not have the key of this process either."""
    unread = str(error).startswith(_UNREAD) and isinstance(error, ApplicationError)
    return isinstance(error.__cause__ if unread else error, EncryptionError)


def _seal(failure: Failure, payload_converter: PayloadConverter) -> None:
    """Move the messages and stack traces of a failure, and of its causes, into payloads."""
    if not failure.HasField("encoded_attributes") or failure.message != _FAILURE:
        attributes = {"message": failure.message, "stack_trace": failure.stack_trace}
        failure.encoded_attributes.CopyFrom(payload_converter.to_payloads([attributes])[0])
        failure.message, failure.stack_trace = _FAILURE, ""
    if failure.HasField("cause") and failure.cause.application_failure_info.type != UnknownKeyError.__name__:
        _seal(failure.cause, payload_converter)
