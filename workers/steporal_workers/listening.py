"""Sockets that a process listens on."""

from __future__ import annotations

import socket

from .problems import Failure

_BACKLOG = 2048


def listener(what: str, host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Args:
        what: What listens, as messages call it.
        host: The address.
        port: The port; any free one with 0.

    Raises:
        Failure: It cannot be listened there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as err:
        raise Failure(
            f"{what} cannot listen on {host}, port {port}: {err.strerror or err}; "
            "stop what listens there, or choose another port"
        ) from None


def url_of(listening: socket.socket) -> str:
    """The base URL of what listens."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
