"""The flags of the codec server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..gateway.options import DEFAULT_HOST

DEFAULT_PORT = 8081
"""Port that Temporal's samples use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecOptions:
    """The flags of ``steporal codec-server``.

    Attributes:
        host: The address to listen on.
        port: The port; 0 chooses a free one.
        codec_keys: The access keys.
        insecure_any_key: Whether the server is open to everybody.
        origins: The origins of the web pages that may use it.
        encryption_keys: See :class:`steporal.encryption.Keys`.
        decryption_keys: See :class:`steporal.encryption.Keys`.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    codec_keys: Sequence[str] | None = field(default=None, repr=False)
    insecure_any_key: bool = False
    origins: Sequence[str] | None = None
    encryption_keys: Sequence[str] | None = field(default=None, repr=False)
    decryption_keys: Sequence[str] | None = field(default=None, repr=False)
