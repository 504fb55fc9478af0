"""Ids of events that are the same in a producer's retry: Inngest's header ``x-inngest-event-id-seed``."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import time
from dataclasses import dataclass

from ulid import ULID

HEADER = "x-inngest-event-id-seed"

_FORM = re.compile(r"([0-9]{1,15}),([A-Za-z0-9+/]{14}==)")
_MAX_MILLIS = 2**48 - 1  # of a ULID
_COUNTS = 2**32


@dataclass(frozen=True, slots=True)
class IdSeed:
    """Seed of the ids of a request's events.

    Attributes:
        millis: The time in the ids.
        entropy: Ten bytes; the last four are a counter that increases with each event.
    """

    millis: int
    entropy: bytes

    @classmethod
    def parse(cls, header: str) -> IdSeed | None:
        """Return the seed in a header's value, ``{millis},{base64 of 10 bytes}``; None if it has another form."""
        match = _FORM.fullmatch(header.strip())
        if match is None or not 0 < int(match[1]) <= _MAX_MILLIS:
            return None
        try:
            entropy = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            return None
        return cls(int(match[1]), entropy)

    @classmethod
    def new(cls) -> IdSeed:
        """Return a new seed with the current time, whose ids ascend."""
        count = secrets.randbelow(_COUNTS // 2)  # no request has enough events for the counter to overflow
        return cls(int(time.time() * 1000), secrets.token_bytes(6) + count.to_bytes(4, "big"))

    def id(self, position: int) -> str:
        """Return the ULID of the event at a position, from 0; Inngest's server makes the same, and counts from 1."""
        count = (int.from_bytes(self.entropy[6:], "big") + position + 1) % _COUNTS
        return str(ULID.from_bytes(self.millis.to_bytes(6, "big") + self.entropy[:6] + count.to_bytes(4, "big")))
