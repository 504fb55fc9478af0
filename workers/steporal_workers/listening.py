"""Sockets that a process listens on."""

from __future__ import annotations

import socket

from .problems import Failure

_BACKLOG = 2048
_BUFFER_BYTES = 128 * 1024


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
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as err:
        raise cannot_listen(what, host, port, err.strerror or str(err)) from None
    # Connections have it from here. asyncio sets it on sockets of its own making alone, and without it the second part
    # of each answer waits 40 ms for the other side to say that it has the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # By itself the system keeps several MiB for each side that does not read, and counts them as the container's.
    for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        listening.setsockopt(socket.SOL_SOCKET, buffer, _BUFFER_BYTES)
    return listening


def cannot_listen(what: str, host: str, port: int, why: str) -> Failure:
    """What is said where something cannot listen."""
    return Failure(
        f"{what} cannot listen on {host}, port {port}: {why}; stop what listens there, or choose another port"
    )


def url_of(listening: socket.socket) -> str:
    """The base URL of what listens."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
