"""Encryption of all that Temporal stores of values: a payload codec, AES-256 in GCM, with keys that can be changed.

A payload is sealed as a whole, with its metadata. What comes out is what Temporal's own samples make: the encoding
``binary/encrypted``, the key's id in ``encryption-key-id``, and as its data a random nonce of 96 bits, and then the
ciphertext.

The commands take their keys from settings, and so does a client that connects by itself. Who connects on their own
says so::

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

_LEAST_DISTINCT = 12
"""Of 32 random bytes, some 30 are distinct."""

_NULL = b"binary/null"
"""The encoding of nothing. Temporal drops a value of a memo, or search attribute, that it sees to be nothing."""

_UNREAD = "Failed decoding "
"""What the SDK says of an activity whose arguments it cannot read."""

_FAILURE = "Encoded failure"
"""What Temporal's SDKs write in place of a message that is encoded."""


# --- keys ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """A key.

    Attributes:
        id: What payloads name it by: the beginning of a digest of it, which tells nothing of it.
        secret: Its 32 bytes.
    """

    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Key:
        """A key as :func:`new_key` writes it: 32 bytes in Base64, also the one for URLs, with padding or without.

        Raises:
            ValueError: It is not a key; the message does not show it.
        """
        plain = text.strip().replace("-", "+").replace("_", "/").rstrip("=")
        try:
            secret = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("it is not valid Base64; `steporal encryption new-key` makes one") from None
        if len(secret) != KEY_BYTES:
            raise ValueError(f"it has {len(secret)} bytes, not {KEY_BYTES}; `steporal encryption new-key` makes one")
        if len(set(secret)) < _LEAST_DISTINCT:
            raise ValueError("its bytes are not random; `steporal encryption new-key` makes one")
        return cls(hashlib.sha256(b"steporal encryption key\0" + secret).hexdigest()[:8], secret)


def new_key() -> str:
    """A new random key, in Base64 for URLs."""
    while True:
        text = base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode().rstrip("=")
        if not text.startswith("-"):  # a shell would take it for an option
            return text


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a process.

    Attributes:
        encryption: The first of them encrypts; all decrypt. Without any, nothing is encrypted.
        decryption: Further keys that decrypt.
    """

    encryption: tuple[Key, ...] = ()
    decryption: tuple[Key, ...] = ()

    @classmethod
    def of(cls, encryption: Iterable[str] = (), decryption: Iterable[str] = ()) -> Keys:
        """Keys as :func:`new_key` writes them.

        Raises:
            DefinitionError: One is none.
        """
        return cls(_parsed(ENCRYPTION_KEYS, encryption), _parsed(DECRYPTION_KEYS, decryption))

    @classmethod
    def of_environment(cls) -> Keys:
        """The keys in ``STEPORAL_ENCRYPTION_KEYS`` and ``STEPORAL_DECRYPTION_KEYS``, separated by commas.

        Raises:
            DefinitionError: One is none, or a variable is set and empty.
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
    found = [part for part in text.split(",") if part.strip()]
    if not found:  # keys that were lost must not turn encryption off
        raise DefinitionError(f"{name} is set but contains no key; set it to one key or several, separated by commas")
    return found


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
    """Encrypts payloads, and decrypts those that are encrypted; others it lets through, as they came.

    Args:
        keys: The keys.
        inside: Another codec, whose payloads are encrypted: compression, which does nothing on what is encrypted.

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
        made = copy(self)
        made._inside = cast(PayloadCodec, inside.with_context(context))
        return made

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """See base class."""
        if self._inside is not None:
            payloads = await self._inside.encode(payloads)
        return list(payloads) if self._first is None else [self._seal(payload, self._first) for payload in payloads]

    @property
    def encrypts(self) -> bool:
        """Whether it encrypts: keys for decryption alone do not."""
        return self._first is not None

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """See base class.

        Raises:
            UnknownKeyError: There is not the key of one.
            EncryptionError: One is not as it was encrypted.
        """
        opened = [self._open(payload) if is_sealed(payload) else payload for payload in payloads]
        return opened if self._inside is None else await self._inside.decode(opened)

    def is_current(self, payload: Payload) -> bool:
        """Whether a stored payload is as it would be if it were stored now."""
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
                f"a value has changed since it was encrypted with key {id!r}: somebody has changed it, or it is damaged"
            ) from None


# --- the data converter --------------------------------------------------------------------------------------------


def data_converter(keys: Keys | None = None, base: DataConverter = DataConverter.default) -> DataConverter:
    """A data converter that encrypts, for ``temporalio.client.Client.connect`` or ``steporal.Client``.

    Args:
        keys: The keys; those of the environment, by default. Without any, it is ``base``.
        base: What else it does: its codec is applied before the encryption, its external storage after it. What its
            failure converter writes of an error, its message and its stack trace, is encrypted, too.

    Raises:
        DefinitionError: A key is none, ``base`` encrypts with other ones, or ``cryptography`` is not installed.
    """
    keys = Keys.of_environment() if keys is None else keys
    if not keys:
        return base
    if isinstance(base.payload_codec, EncryptionCodec):
        if base.payload_codec.keys == keys:
            return base
        raise DefinitionError(
            f"the data converter encrypts already, with other keys than those in {ENCRYPTION_KEYS} and "
            f"{DECRYPTION_KEYS}: leave one of them out"
        )
    codec = EncryptionCodec(keys, base.payload_codec)
    failures = sealing(base.failure_converter_class) if keys.encryption else base.failure_converter_class
    return replace(base, payload_codec=codec, failure_converter_class=failures)


@lru_cache
def sealing(base: type[FailureConverter]) -> type[FailureConverter]:
    """A failure converter whose messages and stack traces are payloads, which a codec encrypts.

    Temporal's own can do that, too; not of causes that came in the clear.

    Args:
        base: What converts errors.
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
    """Whether an error says only that there is not a key: to those who do not have this one either."""
    unread = str(error).startswith(_UNREAD) and isinstance(error, ApplicationError)
    return isinstance(error.__cause__ if unread else error, EncryptionError)


def _seal(failure: Failure, payload_converter: PayloadConverter) -> None:
    """Move the messages and stack traces of a failure, and of its causes, into payloads."""
    if not failure.HasField("encoded_attributes") or failure.message != _FAILURE:
        said = {"message": failure.message, "stack_trace": failure.stack_trace}
        failure.encoded_attributes.CopyFrom(payload_converter.to_payloads([said])[0])
        failure.message, failure.stack_trace = _FAILURE, ""
    if failure.HasField("cause") and failure.cause.application_failure_info.type != UnknownKeyError.__name__:
        _seal(failure.cause, payload_converter)
