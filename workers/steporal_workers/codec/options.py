"""The flags of the codec server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..gateway.options import DEFAULT_HOST

DEFAULT_PORT = 8081
"""Where Temporal's own samples have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecOptions:
    """The flags of ``steporal codec-server``.

    Attributes:
        host: The address on which it listens.
        port: The port; any free one with 0.
        codec_keys: Keys that open it.
        insecure_any_key: Whether it is open to everybody.
        origins: The origins of the web pages that may use it.
        encryption_keys: See :class:`steporal.encryption.Keys`.
        decryption_keys: The same.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    codec_keys: Sequence[str] | None = field(default=None, repr=False)
    insecure_any_key: bool = False
    origins: Sequence[str] | None = None
    encryption_keys: Sequence[str] | None = field(default=None, repr=False)
    decryption_keys: Sequence[str] | None = field(default=None, repr=False)
