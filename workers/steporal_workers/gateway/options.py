"""The flags of the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8288
"""Where Inngest's SDKs look for a dev server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """The flags of ``steporal gateway``.

    Attributes:
        host: The address on which it listens.
        port: The port; any free one with 0.
        event_keys: Keys that open ``/e``.
        api_keys: Keys that open ``/v1`` and ``/invoke``.
        insecure_any_key: Whether what has no keys is open to everybody.
        drain_delay: How long requests are taken at the end, while it is not ready.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    event_keys: Sequence[str] | None = field(default=None, repr=False)
    api_keys: Sequence[str] | None = field(default=None, repr=False)
    insecure_any_key: bool = False
    drain_delay: timedelta = timedelta(0)
