"""``steporal codec-server``: serves HTTP until a signal stops it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from rich.markup import escape

from steporal.encryption import EncryptionCodec, Keys

from ..gateway.keys import Ring, check_keys
from ..gateway.server import serving_on
from ..listening import listener, url_of
from ..output import say
from ..problems import Mistake
from ..worker import stop_signals
from .app import CODEC_KEYS, create_codec_app
from .options import CodecOptions


async def run_codec_server(options: CodecOptions) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; then answer pending requests. A second signal ends the process at once.

    Raises:
        Mistake: A required setting is missing.
        Failure: The address or port cannot be used.
    """
    keys = Keys.of(options.encryption_keys or (), options.decryption_keys or ())
    ring = _ring(keys, options)
    with stop_signals() as stop:
        async with codec_server(listening(options.host, options.port), keys, ring, options.origins or (), stop):
            await stop.wait()
            say("stopping: requests that have arrived are answered; send another signal to stop at once")
    say("stopped")


def _ring(keys: Keys, options: CodecOptions) -> Ring:
    if not keys:
        raise Mistake("the codec server has no encryption keys: set STEPORAL_ENCRYPTION_KEYS")
    if options.codec_keys:
        check_keys(CODEC_KEYS, options.codec_keys)
        return Ring.of(options.codec_keys)
    if options.insecure_any_key:
        return Ring(None)
    raise Mistake(
        f"the codec server has no access keys: set {CODEC_KEYS} to one or several keys, separated by commas; or let "
        "everybody who reaches the server decrypt values, with --insecure-any-key"
    )


def listening(host: str, port: int) -> socket.socket:
    """Return a listening socket for a codec server.

    Raises:
        Failure: The address or port cannot be used.
    """
    return listener("the codec server", host, port)


@asynccontextmanager
async def codec_server(
    at: socket.socket, keys: Keys, ring: Ring, origins: Collection[str], stop: asyncio.Event
) -> AsyncIterator[None]:
    """Run a codec server while the context lasts; print its address and who may use it.

    Args:
        at: The socket that it listens on.
        keys: The encryption keys.
        ring: The access keys.
        origins: The origins of the web pages that may use the server.
        stop: Set when the process receives a signal to stop.
    """
    app = create_codec_app(EncryptionCodec(keys), ring, origins, is_stopping=stop.is_set)
    async with serving_on(app, at):
        known = ", ".join(key.id for key in keys)
        say(f"[bold green]codec server[/] at [bold]{escape(url_of(at))}[/], with keys {known}")
        if ring.is_open:
            say("  [yellow]open to everybody who reaches it[/]")
        if not origins:
            say("  closed to web pages; to allow Temporal's UI, add --origins URL")
        yield
