"""Listening sockets of a process."""

from __future__ import annotations

import socket

from .problems import Failure

_BACKLOG = 2048
_BUFFER_BYTES = 128 * 1024


def listener(what: str, host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Args:
        what: The name of the server in messages.
        host: The address.
        port: The port; 0 chooses a free one.

    Raises:
        Failure: The address or port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as err:
        raise cannot_listen(what, host, port, err.strerror or str(err)) from None
    # Connections inherit this option. asyncio sets it only on sockets that it creates; without it, the second part of
    # each response waits 40 ms for the other side to acknowledge the first part.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # By default the kernel buffers several MiB for each peer that does not read, and counts them as the container's.
    for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        listening.setsockopt(socket.SOL_SOCKET, buffer, _BUFFER_BYTES)
    return listening


def cannot_listen(what: str, host: str, port: int, why: str) -> Failure:
    """Return the error for a server that cannot listen."""
    return Failure(
        f"{what} cannot listen on {host}, port {port}: {why}; stop what listens there, or choose another port"
    )


def url_of(listening: socket.socket) -> str:
    """Return the base URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
