"""The flags of the gateway."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8288
"""Where Inngest's SDKs look for a dev server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """The flags of ``steporal gateway``.

    Attributes:
        host: The address on which it listens.
        port: The port; any free one with 0.
        insecure_any_key: Whether what has no keys is open to everybody.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    insecure_any_key: bool = False
