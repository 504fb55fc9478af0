"""Sockets that a process listens on."""

from __future__ import annotations

import socket

from steporal_workers.listening import listener


def test_no_part_of_an_answer_waits_for_the_other_side() -> None:
    with listener("the gateway", "127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()[:2]):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
