"""Attacks on the gateway: bodies, heads, connections, keys and names of anybody who reaches it."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from steporal.events import ReceivedEvent
from steporal_workers.escaping import printable
from steporal_workers.gateway.answers import Problem
from steporal_workers.gateway.bodies import _parsed, _weighed
from steporal_workers.gateway.events import _prepared
from steporal_workers.gateway.memory import MEMORY_BYTES
from steporal_workers.gateway.seeds import IdSeed

from .attacks import Figures, Turns, attack
from .gateway_process import API_KEY, EVENT_KEYS, PATIENCE, Gateway, gateway

BYTES_OF_POD = 512 * 1024 * 1024
"""What ``deploy/kubernetes`` gives a gateway."""

SECONDS_OF_PROBE = 5.0
"""What it gives a probe."""

# --- bodies --------------------------------------------------------------------------------------------------------


@attack
async def bodies(turns: Turns) -> Figures:
    """Bodies are read in time and memory that are proportional to their bytes, and are taken or refused."""
    figures = Figures()
    for _ in turns:
        body, fed = bytearray(_body(turns.random)), 0.0
        began = time.process_time()
        try:
            weight = _weighed(body)
            value = _parsed(body, "")
            events = _prepared(IdSeed.new(), value)
            fed = time.process_time() - began
            figures.seen["taken"] += 1
            taken = _bytes_of(value) + _bytes_of([event.__dict__ for event in events])
            # An event has some 600 bytes of its own, whatever is in it: a body has at most 5,000.
            if taken > weight.values + 1_000 * len(events) + 2_000:
                figures.breaks("the memory of a body is counted", (taken, weight, bytes(body[:200])))
            for event in events:
                json.dumps(event.__dict__, ensure_ascii=False).encode()
                ReceivedEvent.model_validate(event.model_dump())
        except Problem as problem:
            fed = time.process_time() - began
            figures.seen[str(problem.status)] += 1
            if not 400 <= problem.status < 500:
                figures.breaks("a body is refused with 4xx", (problem.status, problem.message))
        except Exception as err:
            figures.breaks("nothing but a Problem comes of a body", (repr(err), bytes(body[:200])))
        figures.tried += 1
        figures.measure("s of CPU a MB", fed / max(len(body), 100_000) * 1e6)
        if fed > 0.2 + 5e-6 * len(body):
            figures.breaks("a body is read in time proportional to its bytes", (fed, len(body), bytes(body[:200])))
    return figures


def _bytes_of(value: object, known: set[int] | None = None) -> int:
    """What values take in memory, each object once."""
    known = set() if known is None else known
    todo, size = [value], 0
    while todo:
        one = todo.pop()
        if id(one) in known:
            continue
        known.add(id(one))
        size += sys.getsizeof(one) + 16 * isinstance(one, dict | list)
        todo += [*one.keys(), *one.values()] if isinstance(one, dict) else one if isinstance(one, list) else []
    return size


_FRAGMENTS = [
    *(b'"', b"\\", b'\\"', b",", b"[", b"]", b"{", b"}", b":", b"1", b"-", b"e", b".", b"0", b" ", b"\n", b"null"),
    *(b"\\u", b"\\ud83d", b"\\ude00", b"\\u0000", b"\xff", b"\xf0\x9f\x98\x80", b"\xc3\xa9", b"\xed\xa0\x80", b"NaN"),
    *(b'"a":', b'"b",', b"[1,", b'{"k":', b"9" * 300, b"1e308,", b"1e999", b'"":', b"\x00", b"\x1b[2J", b'"data":{'),
]


def _body(chance: random.Random) -> bytes:
    """A body of an event; sometimes one fragment, a hundred thousand times."""
    match chance.randrange(6):
        case 0:
            return b"".join(chance.choices(_FRAGMENTS, k=chance.randrange(200)))
        case 1:
            unit = b"".join(chance.choices(_FRAGMENTS, k=chance.randrange(1, 4)))
            return b"".join(chance.choices([b"", b'"', b"[", b","], k=2)) + unit * chance.choice([100, 10_000, 100_000])
        case 2:
            few = b"".join(chance.choices(_FRAGMENTS, k=2))
            return b"," * 500_001 + few + b"".join(chance.choices(_FRAGMENTS, k=3)) * chance.choice([1_000, 100_000])
        case 3:
            return _mutated(chance, json.dumps([_event(chance) for _ in range(chance.randrange(1, 50))]).encode())
        case _:
            events = [_event(chance) for _ in range(chance.choice([1, 5, 50, 500]))]
            return json.dumps(events, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")


def _mutated(chance: random.Random, text: bytes) -> bytes:
    changed = bytearray(text)
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(changed) + 1)
        changed[at : at + chance.randrange(3)] = chance.choice(_FRAGMENTS)
    return bytes(changed)


def _event(chance: random.Random) -> dict[str, Any]:
    given = {
        "id": _text(chance, 100),
        "ts": chance.choice([0, 1, -1, 315_532_800_000, 4_102_444_800_000, 10**30, 1.5, 1e300, True, "now"]),
        "v": _text(chance, 30),
        "user": {"any": _value(chance, 2)},
    }
    event: dict[str, Any] = {"name": f"hostile.{_text(chance, 20)}", "data": {_text(chance, 8): _value(chance, 4)}}
    return event | {key: value for key, value in given.items() if chance.random() < 0.1}


_ALPHABET = "ab./*:_- \t\n\0\x1b\x7f\x85\x9b\u202e\u2028\ufeff\uffff'\"\\{}[]$%<>éß中\U0001f600\U0010ffff\ud800"


def _text(chance: random.Random, most: int) -> str:
    letters = "abc" if chance.random() < 0.7 else _ALPHABET
    return "".join(chance.choices(letters, k=chance.randrange(1, most + 1)))


def _value(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(9 if depth else 6)
    if kind < 3:
        return _text(chance, 40)
    if kind < 6:
        return chance.choice([None, True, 0, -0.0, 5e-324, 1.7e308, 2**63, 10**300, chance.random()])
    if kind == 6:
        return [_value(chance, depth - 1) for _ in range(chance.randrange(6))]
    return {_text(chance, 10): _value(chance, depth - 1) for _ in range(chance.randrange(6))}


# --- requests ------------------------------------------------------------------------------------------------------


@attack
async def requests(turns: Turns) -> Figures:
    """Whatever is sent for a request is answered, without a fault of the gateway's, and opens nothing without a key."""
    figures = Figures()
    async with gateway() as running:
        for _ in turns:
            sent = [_request(turns.random) for _ in range(8)]
            answers = await asyncio.gather(*(running.said(*_split(turns.random, request)) for request, _ in sent))
            for (request, is_keyless), answer in zip(sent, answers, strict=True):
                figures.tried += 1
                statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
                figures.seen[str(statuses[0]) if statuses else "no answer"] += 1
                if any(status >= 500 and status != 503 for status in statuses):
                    figures.breaks("no request is answered with 5xx, but 503", (request[:300], answer[:300]))
                if b"Traceback" in answer or b'File "' in answer:
                    figures.breaks("an answer says nothing of the gateway's code", (request[:300], answer[:300]))
                if is_keyless and statuses and statuses[0] in (200, 204, 503):
                    figures.breaks("nothing is opened without a key", (request[:300], answer[:300]))
            await _look(running, figures)
        _read_log(running, figures)
    return figures


def _request(chance: random.Random) -> tuple[bytes, bool]:
    """A request, and whether it is for what a key opens, and has none."""
    event, api = EVENT_KEYS[0], f"Bearer {API_KEY}"
    body = _body(chance)[:200_000]
    drawn = quote(_text(chance, 20), errors="replace")
    wrong = chance.choice(["", "x", event[:-1], event + "x", event.upper(), API_KEY, "%00", drawn])
    path, authorization, is_keyless = chance.choice(
        [
            (f"/e/{event}", None, False),
            ("/v1/signals", api, False),
            ("/invoke/" + quote(_text(chance, 300), safe="", errors="replace"), api, False),
            ("/v1/runs/" + quote(_text(chance, 1_000), safe="", errors="replace"), api, False),
            ("/v1/events/" + quote(_text(chance, 300), safe="", errors="replace") + "/runs", api, False),
            (chance.choice(["/live", "/openapi.json", "/", "//", "/e", "*", "http://x/live", "/e/../x"]), None, False),
            (f"/e/{wrong}", chance.choice([None, api]), True),
            (chance.choice(["/v1/runs/x", "/invoke/echo", "/v1/signals"]), f"Bearer {event}", True),
            (
                chance.choice(["/v1/runs/x", "/v1//runs/x", "/invoke/x"]),
                chance.choice([None, API_KEY, "Basic x"]),
                True,
            ),
        ]
    )
    method = chance.choice(["POST", "POST", "POST", "GET", "DELETE", "PUT", "OPTIONS", "TRACE", "CONNECT", "post"])
    headers = ["Host: x", *([f"Authorization: {authorization}"] if authorization else [])]
    framing = chance.choice(["length", "length", "length", "chunked", "both", "wrong", "none"])
    if framing in ("length", "both"):
        headers.append(f"Content-Length: {len(body)}")
    if framing == "wrong":
        headers.append(f"Content-Length: {chance.choice([0, len(body) + 5, -1, 10**30, '+5', '0x5', '5, 5'])}")
    if framing in ("chunked", "both"):
        headers.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    headers += chance.sample(_ODD_HEADERS, k=chance.randrange(3))
    is_keyless &= method in ("GET", "POST", "DELETE", "PUT")
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "", ""]).encode("latin-1", "replace")
    return head + body, is_keyless


_ODD_HEADERS = [
    "Connection: close",
    "Connection: keep-alive, Upgrade\r\nUpgrade: websocket",
    "Upgrade: h2c",
    "Expect: 100-continue",
    "Content-Encoding: gzip",
    "Content-Type: application/x-www-form-urlencoded",
    "Origin: https://evil.example",
    "X-HTTP-Method-Override: DELETE",
    f"X-Original-URL: /e/{EVENT_KEYS[0]}",
    "x-inngest-event-id-seed: 1,AAAAAAAAAAAAAA==",
    "x-inngest-event-id-seed: 999999999999999999999,====",
    "traceparent: 00-ffffffffffffffffffffffffffffffff-ffffffffffffffff-ff",
    "X: " + "x" * 40_000,
    "X : y",
    " folded",
    "X: a\0b",
    "Host: y",
]


def _split(chance: random.Random, request: bytes) -> list[bytes]:
    """A request in pieces, sometimes with another one behind it."""
    request += chance.choice([b"", b"", b"", b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n\x00"])
    at = chance.randrange(len(request))
    return [request[:at], request[at:]] if chance.random() < 0.3 else [request]


async def _look(running: Gateway, figures: Figures) -> None:
    seconds = await running.lives()
    figures.measure("s for a probe", seconds or 0)
    if seconds is None or seconds > SECONDS_OF_PROBE:
        figures.breaks("a probe is answered", f"{seconds} s")


def _read_log(running: Gateway, figures: Figures) -> None:
    said = running.log.read_text(errors="replace")
    figures.measure("lines of log", len(said.splitlines()))
    if "Traceback" in said or " ERROR " in said:
        figures.breaks("no fault is logged", said[-1000:])
    figures.measure("MiB of memory", running.peak_bytes / 2**20)
    if running.peak_bytes > BYTES_OF_POD * 0.85:
        figures.breaks("a gateway takes no more memory than it is given", running.peak_bytes)


# --- connections ---------------------------------------------------------------------------------------------------


@attack
async def connections(turns: Turns) -> Figures:
    """Connections that do not go on are closed, whatever state they are in, and keep no probe out."""
    figures = Figures()
    async with gateway() as running:
        opened: dict[int, tuple[float, str, socket.socket]] = {}
        longest = max(PATIENCE.values()) + 2 * PATIENCE["SEND_SECONDS"] + SECONDS_OF_PROBE
        for _ in turns:
            for _ in range(100):
                figures.tried += 1
                kind = turns.random.choice(sorted(_STALLS))
                figures.seen[kind] += 1
                connected = await _stalled(running, _STALLS[kind])
                opened[connected.getsockname()[1]] = (time.monotonic(), kind, connected)
            await _look(running, figures)
            _end(opened, running, longest, figures)
        await asyncio.sleep(longest)
        await _look(running, figures)
        _end(opened, running, longest, figures)
        _read_log(running, figures)
    return figures


def _end(
    opened: dict[int, tuple[float, str, socket.socket]], running: Gateway, longest: float, figures: Figures
) -> None:
    """Look which connections the gateway still has; those that it has left are closed here, too."""
    held = running.connections()
    figures.measure("connections", len(held))
    for port, (since, kind, connected) in list(opened.items()):
        if port not in held:
            connected.close()
            del opened[port]
        elif time.monotonic() - since > longest:
            figures.breaks("each state of a connection has an end", kind)


_KEY = EVENT_KEYS[0].encode()
_GET = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
_STALLS: dict[str, bytes] = {
    "nothing": b"",
    "half a line": b"GET /li",
    "half a head": b"POST /e/x HTTP/1.1\r\nHost: x\r\n",
    "a body without its end": b"POST /e/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{" % _KEY,
    "a body that nobody may send": b"POST /e/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{",
    "a chunk without its end": b"POST /e/%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n{" % _KEY,
    "an answer, kept": _GET,
    "answers, not taken": _GET * 200,
    "answers, not taken, and the last": _GET * 200 + _GET[:-2] + b"Connection: close\r\n\r\n",
    "answers, not taken, and no HTTP": _GET * 200 + b"\0\r\n\r\n",
    "an answer, and half a head": _GET + b"GET /li",
    "an answer, and half a body": _GET + b"POST /e/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{" % _KEY,
    "to go on": b"POST /e/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\nExpect: 100-continue\r\n\r\n" % _KEY,
}


async def _stalled(running: Gateway, sent: bytes) -> socket.socket:
    loop, connected = asyncio.get_running_loop(), socket.socket()
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connected.setblocking(False)
    try:
        async with asyncio.timeout(2):
            await loop.sock_connect(connected, (running.host, running.port))
            await loop.sock_sendall(connected, sent)
    except (OSError, TimeoutError):
        pass
    return connected


# --- memory --------------------------------------------------------------------------------------------------------


@attack
async def memory(turns: Turns) -> Figures:
    """Large bodies of two senders take no more memory than a pod has, and keep neither small ones nor probes out."""
    figures = Figures()
    async with gateway() as running:
        for _ in turns:
            made = [_large(turns.random) for _ in range(8)]
            sending = [
                asyncio.create_task(running.said(*_slowly(turns.random, body, number), seconds=60))
                for number, body in enumerate(made)
            ]
            while not all(task.done() for task in sending):
                await _look(running, figures)
                small = await running.said(_post(EVENT_KEYS[0], b'{"name": "nobody.cares"}'))
                figures.seen[f"small: {small[9:12].decode()}"] += 1
                if not small.startswith(b"HTTP/1.1 200 "):
                    figures.breaks("a small body is taken whatever is sent beside it", small[:300])
                await asyncio.sleep(0.05)
            for task in sending:
                figures.tried += 1
                figures.seen[f"large: {task.result()[9:12].decode()}"] += 1
        _read_log(running, figures)
    if not figures.most["MiB of memory"] * 2**20 < MEMORY_BYTES * 1.7:
        figures.breaks("bodies take what they may", figures.most)
    return figures


def _post(key: str, body: bytes) -> bytes:
    head = b"POST /e/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    return head % (key.encode(), len(body)) + body


def _slowly(chance: random.Random, body: bytes, number: int) -> list[bytes]:
    request = _post(EVENT_KEYS[number % 2], body)
    return [request[:-10]] if chance.random() < 0.3 else [request]


_DEEP = b'{"k":' * 50 + b"1" + b"}" * 50
_LARGE: list[Callable[[int], bytes]] = [
    lambda n: b'{"name":"nobody.cares","data":{"l":[' + b",".join([b'{"a":1}'] * (n // 8)) + b"]}}",
    lambda n: b'{"name":"nobody.cares","data":{"t":"' + b"x" * n + b'"}}',
    lambda n: b'{"name":"nobody.cares","data":{"t":"' + b"x" * n + b'\xf0\x9f\x98\x80"}}',
    lambda n: b'{"name":"nobody.cares","data":{"t":"' + b"\\u4e2d" * (n // 6) + b'"}}',
    lambda n: b'{"name":"nobody.cares","data":{"t":"' + b'\\",' * (n // 3) + b'"}}',
    lambda n: b'{"name":"nobody.cares","data":{"l":[' + b",".join([_DEEP] * (n // 301)) + b"]}}",
]


def _large(chance: random.Random) -> bytes:
    """A body of up to 16 MiB; where it is of values, of up to a tenth of that, as more are refused."""
    event = chance.choice(_LARGE)(chance.choice([20_000, 200_000, 500_000]))
    most = 1_000_000 if b'"l"' in event else 16_000_000
    return b"[" + b",".join([event] * min(5_000, chance.choice([1, most // len(event) or 1]))) + b"]"


# --- names ---------------------------------------------------------------------------------------------------------


@attack
async def names(turns: Turns) -> Figures:
    """What the gateway accepts starts a run that ends, and is found by its id, whatever its name, id and data are."""
    figures = Figures()
    async with gateway(with_worker=True) as running:
        sent: dict[str, dict[str, Any]] = {}
        number = 0
        for _ in turns:
            for _ in range(5):
                number += 1
                event = _extreme(turns.random, number)
                body = json.dumps(event).encode()
                answer = await running.said(_post(EVENT_KEYS[0], body))
                figures.tried += 1
                figures.seen[answer[9:12].decode()] += 1
                if answer.startswith(b"HTTP/1.1 200 "):
                    sent[json.loads(answer.partition(b"\r\n\r\n")[2])["ids"][0]] = event
                elif not answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 ")):
                    figures.breaks("an event is taken or refused", (body[:300], answer[:300]))
        for event_id, event in sent.items():
            found = await _output(running, event_id)
            if found is None or (found.get("name"), found.get("data")) != (event["name"], event["data"]):
                example = (event_id, str(event)[:300], str(found)[:300])
                figures.breaks("the run of an event that was accepted ends", example)
        _read_log(running, figures)
    return figures


async def _output(running: Gateway, event_id: str) -> dict[str, Any] | None:
    path = quote(f"hostile/echo/{event_id.removeprefix('inngest:')}", safe="")
    request = f"GET /v1/runs/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\nConnection: close\r\n\r\n"
    until = time.monotonic() + 20
    while time.monotonic() < until:
        answer = await running.said(request.encode())
        if answer.startswith(b"HTTP/1.1 200 "):
            run = json.loads(answer.partition(b"\r\n\r\n")[2])["data"]
            if run["ended_at"]:
                output: dict[str, Any] | None = run["output"]
                return output
        await asyncio.sleep(0.1)
    return None


def _extreme(chance: random.Random, number: int) -> dict[str, Any]:
    wide = chance.choice(["a", "é", "中", "\U0001f600", "\U0010ffff", ".", "/", "\u202e", "\x1b", "\n", "a.", "\uffff"])
    name = f"hostile{chance.choice('./')}{wide * chance.choice([1, 10, 125, 250, 504, 600])}"[
        : chance.choice([512, 520])
    ]
    nested: Any = 1
    for depth in range(chance.choice([1, 50, 97, 98, 99, 100, 200])):
        nested = [nested] if depth % 2 else {wide: nested}
    data = chance.choice(
        [
            {"nested": nested},
            {"text": wide * chance.choice([1, 100_000])},
            {wide * chance.choice([1, 100_000]): 1},
            {"number": chance.choice([10**4_200, -(10**300), 2**63, 5e-324, 1.7976931348623157e308, -0.0, 0])},
            {"$": chance.choice(["model", "tuple", "type", "function", wide]), "name": "os:system", "value": [1]},
            {"many": [{"a": number}] * chance.choice([1, 5_000])},
            {f"{key}{wide}": None for key in range(chance.choice([0, 5_000]))},
            {"__proto__": {}, "": "", "\0": "\0", "{0.__class__}": "%s %n ${x}"},
        ]
    )
    event: dict[str, Any] = {
        "name": name + "x",
        "data": data,
        "id": f"{number}-{wide * chance.choice([1, 50, 99, 390])}",
    }
    if chance.random() < 0.3:
        event["ts"] = chance.choice([315_532_800_000, 1_000_000_000_000])
    if chance.random() < 0.3:
        event["v"] = wide * chance.choice([1, 10_000])
    return event


# --- what people see -----------------------------------------------------------------------------------------------


@attack
async def printed_texts(turns: Turns) -> Figures:
    """No text that is shown to people has a control of terminals or of the text's direction; all can be encoded."""
    figures = Figures()
    for _ in turns:
        codes = [*turns.random.choices(_SUSPECT, k=50), turns.random.randrange(0x110000)]
        text = "".join(map(chr, codes))
        shown = printable(text)
        shown.encode()
        figures.tried += 1
        if any(
            (ord(char) < 32 and char not in "\t\n") or 127 <= ord(char) < 160 or char in _DIRECTIONS for char in shown
        ):
            figures.breaks("no control is shown", ascii(shown))
    return figures


_CONTROLS = {*range(9), *range(11, 32), *range(127, 160)}
_SUSPECT = [*range(0x300), *range(0x600, 0x620), *range(0x2000, 0x2100), *range(0xD7F0, 0xE010)]
_DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"
