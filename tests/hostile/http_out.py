"""Servers that are fetched, and receivers of sinks: what they answer, and where their names lead."""

from __future__ import annotations

import asyncio
import encodings.aliases
import gzip
import random
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

from steporal.errors import InvalidArgumentError
from steporal.outbound.addresses import addresses_of, is_plainly_private, is_public, public_addresses_of
from steporal.outbound.content import Body, BodyBrokenError, BodyTooLargeError, Coding
from steporal.outbound.exchange import Answer, Request, exchange
from steporal.outbound.fetching import response_of
from steporal.outbound.problems import PrivateAddressError, ResponseEncodingError, ResponseTooLargeError
from steporal.outbound.retry_after import retry_after

from .attacks import Figures, Turns, attack
from .costs import Limits

SECRET = "tOp-sEcReT"
MAX_BODY = 200_000
TIMEOUT = timedelta(seconds=0.5)
CHARSETS = sorted({*encodings.aliases.aliases, "punycode", "idna", "unicode_escape", "utf-7", "undefined", "x" * 500})
ENDED = (ConnectionError, TimeoutError, ResponseTooLargeError, ResponseEncodingError, InvalidArgumentError)

# --- answers -------------------------------------------------------------------------------------------------------


def _bomb(layers: int) -> bytes:
    packing = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(packing.compress(bytes(1 << 20)) for _ in range(80)) + packing.flush()
    for _ in range(layers - 1):
        packed = gzip.compress(packed)
    return packed


BOMBS = [_bomb(layers) for layers in (1, 2, 3)]


def _packed(chance: random.Random) -> tuple[str, bytes]:
    """A body, and a header that may say how it is packed."""
    plain = chance.choice([b"", b"ok", b"x" * MAX_BODY, b"x" * (MAX_BODY + 1), b"ab\xff\x00" * 10_000, b"a" * 190_000])
    body = chance.choice(
        [
            plain,
            gzip.compress(plain),
            zlib.compress(plain),
            zlib.compress(plain)[2:-4],
            gzip.compress(b"") * 5_000,
            gzip.compress(plain) + gzip.compress(plain),
            gzip.compress(plain)[: chance.randrange(1, 60)],
            chance.choice(BOMBS),
            chance.randbytes(2_000),
        ]
    )
    codings = [
        "",
        "identity",
        "gzip",
        "x-gzip",
        "deflate",
        "br",
        "zstd",
        "compress",
        "gzip, gzip",
        "gzip" + ",gzip" * 500,
    ]
    return chance.choice([*codings, "gzip", "deflate", "gzip"]), body


def _head(chance: random.Random, port: int, elsewhere: int) -> list[str]:
    """Headers that a server may send."""
    places = [
        "/",
        "",
        "http://[::1",
        f"//localhost:{elsewhere}/x",
        f"http://a:b@127.0.0.1:{port}/",
        "file:///etc/passwd",
    ]
    places += [
        f"\\\\localhost:{elsewhere}\\x",
        f"http://127.0.0.1:{port}@localhost:{elsewhere}/",
        "/%0d%0aX:1",
        "x" * 900,
    ]
    places += [f"http://127.0.0.1:{elsewhere}/x", f"http://2130706433:{elsewhere}/", f"https://127.0.0.1:{port}/"]
    times = ["9" * 5_000, "-1", "1e9", "nan", "Wed, 21 Oct 99999 07:28:00 GMT", "Mon, 01 Jan 0001 00:00:00 -9999", "0"]
    headers = [
        f"location: {chance.choice(places)}",
        f"retry-after: {chance.choice(times)}",
        f"content-type: text/plain; charset={chance.choice(CHARSETS)}",
        f"content-length: {chance.choice(['-5', '9' * 19, '9' * 30, '1', 'x'])}",
        *(f"x-{number}: {'v' * chance.randrange(50)}" for number in range(chance.choice([0, 3, 900]))),
        "set-cookie: a=b",
        "connection: keep-alive",
        "x: " + "\xff" * 100,
    ]
    return chance.sample(headers, chance.randrange(len(headers)))


async def _send(chance: random.Random, writer: asyncio.StreamWriter, port: int, elsewhere: int) -> None:
    status = chance.choice([200, 200, 200, 200, 204, 301, 302, 307, 404, 429, 503, 999, 103])
    coding, body = _packed(chance)
    headers = [f"HTTP/1.1 {status} Said", *_head(chance, port, elsewhere)]
    headers += [f"content-encoding: {coding}"] if coding else []
    manner = chance.choice(["length", "length", "length", "close", "chunked", "endless", "garbage", "heads"])
    if manner == "garbage":
        writer.write(chance.randbytes(300))
        return
    if manner == "heads":
        for _ in range(400):
            writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100)
            await writer.drain()
        return
    headers += {"length": [f"content-length: {len(body)}"], "chunked": ["transfer-encoding: chunked"]}.get(manner, [])
    writer.write("\r\n".join([*headers, "", ""]).encode("latin-1"))
    while True:
        writer.write(b"%x\r\n%s\r\n" % (len(body), body) if manner == "chunked" and body else body)
        await writer.drain()
        if manner != "endless" or not body:
            break
    if manner == "chunked":
        writer.write(b"0\r\n\r\n")


@asynccontextmanager
async def _server(chance: random.Random, elsewhere: int) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server of hostile answers, or of none of interest; its port, and the heads of requests that came."""
    heads: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            if elsewhere:
                await _send(chance, writer, port, elsewhere)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield port, heads
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _request(url: str) -> Request:
    return Request("GET", url, [("authorization", f"Bearer {SECRET}")], None, TIMEOUT, MAX_BODY, url.partition("?")[0])


def _read(answer: Answer) -> int:
    """What is made of an answer; the length of its text."""
    retry_after(answer.headers.get("retry-after"), datetime.now(UTC), timedelta(days=1))
    return len(response_of(answer).model_dump(mode="json")["body"])


@attack
async def answers_of_hostile_servers(turns: Turns) -> Figures:
    """Any answer ends in time and within memory, tells no secret, and sends nothing to another server."""
    figures, chance = Figures(), turns.random
    limits = Limits(seconds=10, megabytes=100)  # of a second of the server's own; 40,000 early hints take seconds
    async with _server(chance, 0) as (elsewhere, strayed), _server(chance, elsewhere) as (port, heads):
        for _ in turns:
            figures.tried += 1
            heads.clear()
            state, began = chance.getstate(), time.monotonic()
            with limits.hold(figures, hash(state)):
                try:
                    answer = await exchange(_request(f"http://127.0.0.1:{port}/?token={SECRET}"))
                    figures.measure("characters of a body", _read(answer))
                    figures.seen["answered"] += 1
                    if len(answer.body) > MAX_BODY:
                        figures.breaks("a body is no larger than it may be", answer.headers)
                except ENDED as err:
                    figures.seen[type(err).__name__] += 1
                    if SECRET in f"{err} {err.__cause__!r}":
                        figures.breaks("no message has a secret", err)
                except Exception as err:
                    figures.breaks("an exchange ends with an answer or an error of ours", repr(err))
            seconds = time.monotonic() - began
            figures.measure("seconds", seconds)
            if seconds > TIMEOUT.total_seconds() + 10:
                figures.breaks("an exchange ends in its time", (seconds, heads))
            if strayed:
                figures.breaks("nothing is sent to another server", strayed)
                strayed.clear()
    return figures


@attack
async def packed_bodies(turns: Turns) -> Figures:
    """Bodies that are packed in every way, in chunks of every size: read as they are, within the limit, or refused."""
    figures, chance = Figures(), turns.random
    limits = Limits(seconds=2, megabytes=64)
    for _ in turns:
        figures.tried += 1
        plain = chance.randbytes(chance.randrange(100)) * chance.randrange(1, 3_000)
        coding: Coding = chance.choice(["identity", "gzip", "deflate"])
        cut = chance.randrange(len(plain) + 1)
        packed = {
            "identity": plain,
            "gzip": gzip.compress(plain[:cut]) + gzip.compress(plain[cut:]),
            "deflate": zlib.compress(plain),
        }[coding]
        damage = chance.choice(["none", "none", "cut", "byte", "bomb"])
        if damage == "cut":
            packed = packed[: chance.randrange(len(packed) + 1)]
        elif damage == "byte" and packed:
            at = chance.randrange(len(packed))
            packed = packed[:at] + chance.randbytes(1) + packed[at + 1 :]
        elif damage == "bomb":
            packed = chance.choice(BOMBS)
        most, size = chance.choice([0, 10, len(plain), 1_000_000]), chance.choice([1, 100, 16_384, 10**9])
        with limits.hold(figures, (coding, damage, len(packed))):
            try:
                body = Body(coding, most)
                for at in range(0, len(packed), size if len(packed) < 10_000 else max(size, 1_000)):
                    body.add(packed[at : at + (size if len(packed) < 10_000 else max(size, 1_000))])
                read = body.whole()
            except BodyTooLargeError:
                figures.seen["too large"] += 1
                if damage == "none" and len(plain) <= most:
                    figures.breaks("what fits is read", (coding, len(plain), most))
                continue
            except BodyBrokenError:
                figures.seen["broken"] += 1
                if damage == "none":
                    figures.breaks("what is whole is read", (coding, len(plain), most))
                continue
            figures.seen["read"] += 1
            if len(read) > most:
                figures.breaks("no more is read than may be", (coding, len(read), most))
            if damage == "none" and read != plain:
                figures.breaks("what is read is what was packed", (coding, plain[:100]))
    return figures


# --- addresses -----------------------------------------------------------------------------------------------------

PRIVATE = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
    *("168.63.129.16/32", "169.254.169.254/32", "100.100.100.200/32"),
)
"""Where no sink may connect to, as a review listed it."""


def _private(chance: random.Random) -> IPv4Address:
    network, _, bits = chance.choice(PRIVATE).partition("/")
    return IPv4Address(int(IPv4Address(network)) + chance.getrandbits(32 - int(bits)))


def _forms(chance: random.Random, address: IPv4Address) -> list[IPv4Address | IPv6Address]:
    """All that may lead to an IPv4 address."""
    low, rest = int(address), chance.getrandbits(32)
    forms = [
        low,
        0xFFFF << 32 | low,
        0xFFFF << 48 | low,
        0x64FF9B << 96 | low,
        0x64FF9B0001 << 80 | rest << 32 | low,
        0x2002 << 112 | low << 80 | rest,
        0x20010000 << 96 | rest << 64 | (low ^ 0xFFFFFFFF),
        0x20010000 << 96 | low << 64 | rest,
    ]
    return [address, *map(IPv6Address, forms)]


@attack
async def addresses_of_receivers(turns: Turns) -> Figures:
    """Private addresses in every form and spelling are refused, and the internet is not."""
    figures, chance = Figures(), turns.random
    for _ in turns:
        for address in _forms(chance, _private(chance)):
            figures.tried += 1
            figures.seen["private"] += 1
            if is_public(address):
                figures.breaks("no form of a private address passes", address)
        ours = int(_private(chance))
        for host in (str(ours), hex(ours), oct(ours).replace("0o", "0"), f"::ffff:{IPv4Address(ours)}", f"[{ours}]"):
            figures.tried += 1
            figures.seen["private"] += 1
            try:
                found = await public_addresses_of(host, 80)
                figures.breaks("no spelling of a private address passes", (host, found))
            except (PrivateAddressError, ConnectionError):
                pass
        address = ip_address(chance.getrandbits(32) if chance.random() < 0.5 else chance.getrandbits(128))
        figures.tried += 1
        figures.seen["public" if is_public(address) else "private"] += 1
        if is_public(address) and not address.is_global:
            figures.breaks("what is public is so for the standard library", address)
        if is_plainly_private(str(address)) is is_public(address):
            figures.breaks("an address is as it is written", address)
        if (
            is_public(address)
            and isinstance(address, IPv4Address)
            and await addresses_of(str(address), 80) != [str(address)]
        ):
            figures.breaks("an address leads to itself", address)
    return figures
