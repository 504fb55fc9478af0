"""Ids of events that a producer's retry makes again: Inngest's header ``x-inngest-event-id-seed``."""

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
    """What the ids of a request's events are made from.

    Attributes:
        millis: The time that the ids carry.
        entropy: Ten bytes; the last four are counted up from event to event.
    """

    millis: int
    entropy: bytes

    @classmethod
    def parse(cls, header: str) -> IdSeed | None:
        """The seed in a header's value, ``{millis},{base64 of 10 bytes}``; None if it is not of this form."""
        found = _FORM.fullmatch(header.strip())
        if found is None or not 0 < int(found[1]) <= _MAX_MILLIS:
            return None
        try:
            entropy = base64.b64decode(found[2], validate=True)
        except binascii.Error:
            return None
        return cls(int(found[1]), entropy)

    @classmethod
    def new(cls) -> IdSeed:
        """A seed of now, whose ids ascend."""
        count = secrets.randbelow(_COUNTS // 2)  # no request has so many events that it wraps
        return cls(int(time.time() * 1000), secrets.token_bytes(6) + count.to_bytes(4, "big"))

    def id(self, position: int) -> str:
        """The ULID of the event at a position, from 0; as Inngest's server makes it, which counts from 1."""
        count = (int.from_bytes(self.entropy[6:], "big") + position + 1) % _COUNTS
        return str(ULID.from_bytes(self.millis.to_bytes(6, "big") + self.entropy[:6] + count.to_bytes(4, "big")))
