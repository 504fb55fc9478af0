"""Keys of the gateway: event keys, which only send events, and API keys."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..problems import Mistake

EVENT_KEYS = "STEPORAL_EVENT_KEYS"
API_KEYS = "STEPORAL_API_KEYS"
"""Environment variables that hold one or several valid keys, separated by commas."""

MIN_KEY_LENGTH = 16
"""In characters. A random key of that length cannot be guessed, at any rate of requests."""

_SIGNING_KEY = re.compile(r"(signkey-\w+-)?((?:[0-9a-fA-F]{2})+)")


@dataclass(frozen=True, slots=True)
class Ring:
    """Keys for one part of the gateway.

    Attributes:
        digests: SHA-256 digest of each; None if any key, or none, is accepted.
    """

    digests: tuple[bytes, ...] | None

    @classmethod
    def of(cls, keys: Iterable[str]) -> Ring:
        """Return a ring of these keys; an empty ring accepts no key."""
        return cls(tuple(map(_digest, keys)))

    @property
    def is_open(self) -> bool:
        """True if no key is required."""
        return self.digests is None

    @property
    def is_closed(self) -> bool:
        """True if no key is accepted."""
        return self.digests == ()

    def accepts(self, key: str) -> bool:
        """Return whether a key is valid; takes the same time for any key of the same length."""
        if self.digests is None:
            return True
        key_digest = _digest(key)
        is_valid = False
        for digest in self.digests:
            is_valid |= hmac.compare_digest(digest, key_digest)
        return is_valid


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of a gateway.

    Attributes:
        event: The keys for ``/e``.
        api: The keys for ``/v1`` and ``/invoke``.
    """

    event: Ring
    api: Ring

    @classmethod
    def any(cls) -> Keys:
        """Return keys for development: no key is required."""
        return cls(Ring(None), Ring(None))

    @classmethod
    def of(
        cls, event: Sequence[str] | None, api: Sequence[str] | None = None, *, insecure_any_key: bool = False
    ) -> Keys:
        """Return the keys of the settings.

        If only one of the two is set, the other part stays closed; with ``insecure_any_key``, it is open.

        Raises:
            Mistake: No keys are set.
        """
        if not event and not api and not insecure_any_key:
            raise Mistake(
                f"the gateway has no keys: set {EVENT_KEYS} (for /e) and {API_KEYS} (for /v1 and /invoke) to one key "
                "or several, separated by commas; or accept requests from everybody, with --insecure-any-key"
            )
        closed = Ring(None) if insecure_any_key else Ring(())
        return cls(
            Ring.of(event) if event else closed,
            Ring.of(spelled for key in api for spelled in _spellings(key)) if api else closed,
        )


def check_keys(variable: str, keys: Iterable[str]) -> None:
    """Check that keys are long enough to be kept secret; the message does not contain them.

    Args:
        variable: The environment variable of the setting that they come from.
        keys: The keys.

    Raises:
        Mistake: A key is too short.
    """
    for number, key in enumerate(keys, 1):
        if len(key) < MIN_KEY_LENGTH:
            raise Mistake(
                f"key {number} of {variable} has {len(key)} character{'s' * (len(key) != 1)}; use keys of "
                f"{MIN_KEY_LENGTH} characters or more, which nobody can guess: openssl rand -hex 32"
            )


def _spellings(key: str) -> Iterable[str]:
    """Yield an API key, and its form if Inngest's SDKs use it as their signing key: hashed after its prefix."""
    yield key
    signing = _SIGNING_KEY.fullmatch(key)
    if signing:
        yield (signing[1] or "") + hashlib.sha256(bytes.fromhex(signing[2])).hexdigest()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
