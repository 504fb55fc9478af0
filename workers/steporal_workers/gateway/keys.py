"""Who may use the gateway: event keys, which only send events, and API keys."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..problems import Mistake

EVENT_KEYS = "STEPORAL_EVENT_KEYS"
API_KEYS = "STEPORAL_API_KEYS"
"""Environment variables: keys, separated by commas, all of which are good."""

MIN_KEY_LENGTH = 16
"""In characters. Nobody guesses a random key of that length, at any rate of requests."""

_SIGNING_KEY = re.compile(r"(signkey-\w+-)?((?:[0-9a-fA-F]{2})+)")


@dataclass(frozen=True, slots=True)
class Ring:
    """Keys that open one part of the gateway.

    Attributes:
        digests: SHA-256 of each; None: whatever is given opens it, also nothing.
    """

    digests: tuple[bytes, ...] | None

    @classmethod
    def of(cls, keys: Iterable[str]) -> Ring:
        """A ring of these keys; without any, nothing opens."""
        return cls(tuple(map(_digest, keys)))

    @property
    def is_open(self) -> bool:
        """Whether no key is needed."""
        return self.digests is None

    @property
    def is_closed(self) -> bool:
        """Whether no key is good."""
        return self.digests == ()

    def accepts(self, key: str) -> bool:
        """Whether a key is one of these; takes the same time whatever it is."""
        if self.digests is None:
            return True
        given = _digest(key)
        found = False
        for digest in self.digests:
            found |= hmac.compare_digest(digest, given)
        return found


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a gateway.

    Attributes:
        event: Open ``/e``.
        api: Open ``/v1`` and ``/invoke``.
    """

    event: Ring
    api: Ring

    @classmethod
    def any(cls) -> Keys:
        """No key is needed, for development."""
        return cls(Ring(None), Ring(None))

    @classmethod
    def of(
        cls, event: Sequence[str] | None, api: Sequence[str] | None = None, *, insecure_any_key: bool = False
    ) -> Keys:
        """The keys that are set.

        What has no keys stays closed if the other has some; with ``insecure_any_key``, it is open.

        Raises:
            Mistake: There are none at all.
        """
        if not event and not api and not insecure_any_key:
            raise Mistake(
                f"the gateway has no keys: set {EVENT_KEYS} (for /e) and {API_KEYS} (for /v1 and /invoke) to one key "
                "or several, separated by commas; or allow everybody who reaches it, with --insecure-any-key"
            )
        closed = Ring(None) if insecure_any_key else Ring(())
        return cls(
            Ring.of(event) if event else closed,
            Ring.of(spelled for key in api for spelled in _spellings(key)) if api else closed,
        )


def check_keys(variable: str, keys: Iterable[str]) -> None:
    """Check that keys are not too short to be kept secret; the message does not contain them.

    Args:
        variable: The environment variable of the setting that they come from.
        keys: The keys.

    Raises:
        Mistake: One is.
    """
    for number, key in enumerate(keys, 1):
        if len(key) < MIN_KEY_LENGTH:
            raise Mistake(
                f"key {number} of {variable} has {len(key)} character{'s' * (len(key) != 1)}; use keys of "
                f"{MIN_KEY_LENGTH} characters or more, which nobody can guess: openssl rand -hex 32"
            )


def _spellings(key: str) -> Iterable[str]:
    """An API key, and how Inngest's SDKs send it where it is their signing key: hashed behind its prefix."""
    yield key
    signing = _SIGNING_KEY.fullmatch(key)
    if signing:
        yield (signing[1] or "") + hashlib.sha256(bytes.fromhex(signing[2])).hexdigest()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
