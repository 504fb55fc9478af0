"""Flags of the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8288
"""Port on which Inngest's SDKs look for a dev server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """Flags of ``steporal gateway``.

    Attributes:
        host: The address to listen on.
        port: The port; 0 chooses a free one.
        event_keys: The keys for ``/e``.
        api_keys: The keys for ``/v1`` and ``/invoke``.
        insecure_any_key: Whether a part without keys is open to everybody.
        drain_delay: The time for which requests are still accepted at the end, while the gateway is not ready.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    event_keys: Sequence[str] | None = field(default=None, repr=False)
    api_keys: Sequence[str] | None = field(default=None, repr=False)
    insecure_any_key: bool = False
    drain_delay: timedelta = timedelta(0)
