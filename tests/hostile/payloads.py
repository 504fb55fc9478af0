"""Attacks by who can write to the namespace: values and step functions that a payload names.

Nothing is called: an input is read, as a worker reads it before it calls a step. Meanwhile every call of Python and of
C is watched, and every event that Python's audit hooks see (``payload_oracle``).
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import random
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

from steporal.closures.references import AppCode, Resolver
from steporal.errors import SteporalError
from steporal.values.decoding import decode
from steporal.values.encoding import TAG, encode
from steporal.values.packed import unpack_json
from steporal.wire.run_state import read_run_state

from .attacks import Figures, Turns, attack
from .payload_app import APP, LIBRARY, PACKAGES, app
from .payload_forge import Forge, Names, references, values
from .payload_oracle import Oracle, is_function_of_app, parts_not_allowed

SECONDS_PER_INPUT = 3.0
"""How long reading one input may take; one that is watched takes several times as long as one that is not."""

ORACLE = Oracle()


def _no_captive(data: Any) -> Any:
    raise SteporalError(f"no tag {str(data)[:50]}")


def read(data: Any) -> Any:
    """Read an input as a worker does: as the function of a step where it is one, else as an argument."""
    resolver = Resolver(AppCode({"w": app.handler}, PACKAGES), _no_captive)
    is_function = isinstance(data, dict) and data.get(TAG) == "function"
    call = data if isinstance(data, dict) and "function" in data else None
    if call is None:
        call = {"function": data} if is_function else {"function": _ADD, "arguments": [data]}
    return resolver.call(call)


_ADD = {TAG: "function", "name": f"{APP}:add"}


@attack
async def references_and_values(turns: Turns) -> Figures:
    """Crafted references and tagged values: whatever is named, no code runs but ours and the app's."""
    figures, forge = Figures(), Forge(turns.random)
    warm_up()
    for _ in turns:
        data = forge.input()
        figures.tried += 1
        began = time.thread_time()
        outcome = look_at(data, figures)
        figures.seen[outcome] += 1
        figures.measure("seconds of processor time to read an input", took := time.thread_time() - began)
        if took > SECONDS_PER_INPUT:
            figures.breaks("an input is read within seconds", json.dumps(data))
    return figures


def look_at(data: Any, figures: Figures) -> str:
    """Read an input, and note what broke a promise; return how it ended."""
    found: Any = None
    try:
        with ORACLE():
            try:
                found = read(data)
            except SteporalError as err:
                if len(str(err)) > 5_000:
                    figures.breaks("an error message is short", f"{len(str(err))} of {json.dumps(data)}")
                return "refused"
            except BaseException as err:
                figures.breaks("what cannot be read is an error of ours", f"{err!r} of {json.dumps(data)}")
                return "broken"
        function, arguments = found
        if not is_function_of_app(function):
            figures.breaks("only functions of the app are named", f"{function!r} by {json.dumps(data)}")
        for part in parts_not_allowed([arguments, _captured(function)]):
            figures.breaks("only listed classes are made", f"{part} by {json.dumps(data)}")
        return "read"
    finally:
        with ORACLE.finishing():
            found = function = arguments = None
        if ORACLE.ran:
            figures.breaks("no other code runs", f"{ORACLE.ran[:3]} by {json.dumps(data)}")


def _captured(function: Any) -> list[Any]:
    while isinstance(function, functools.partial):
        return [function.args, function.keywords, _captured(function.func)]
    if isinstance(function, MethodType):
        return [function.__self__]
    return []


def warm_up() -> None:
    """Have everything loaded that is loaded at its first use."""
    warnings.simplefilter("ignore")
    importlib.import_module("pydantic._internal._serializers")  # which pydantic itself imports late
    for data in [*references(), *values()]:
        read(data)
    for name in ("UTC", "America/New_York"):
        decode({TAG: "zone", "value": name})
    gc.collect()


@attack
async def every_attribute_of_every_class(turns: Turns) -> Figures:
    """Methods of all classes that a worker has loaded, and all names of all modules as functions, in turn."""
    figures = Figures()
    warm_up()
    for _, data in zip(turns, _every(Names(), turns.random), strict=False):
        figures.tried += 1
        figures.seen[look_at(data, figures)] += 1
    return figures


def _every(names: Names, chance: random.Random) -> Iterator[Any]:
    """Name everything once, in another order with each seed; an hour is enough for all of it."""
    everything = sorted({*names.members, *names.data, *names.classes})
    chance.shuffle(everything)
    for name in everything:
        yield {TAG: "function", "name": name}
        yield {TAG: "function", "name": f"{APP}:{name.replace(':', '.')}"}
        yield {TAG: "module", "name": name.partition(":")[0]}
        yield {TAG: "type", "name": name}
        for tag in ("model", "dataclass", "namedtuple"):
            yield {TAG: tag, "type": name, "shape": "0", "value": {}}
        yield {TAG: "enum", "type": name, "value": 1}
        for attribute in names.attributes(name):
            owner = {TAG: "model" if attribute.startswith("model") else "dataclass", "type": name, "value": {}}
            yield {TAG: "function", "method": attribute, "self": {TAG: "type", "name": name}}
            yield {TAG: "function", "method": attribute, "self": owner}


# --- what costs more than it should --------------------------------------------------------------------------------

MOST_BYTES = 300 * 2**20
"""How much memory reading a payload of Temporal's two megabytes may take."""
_SIZE = 2_000_000


def _bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return packer.compress(b"{") + b"".join(packer.compress(b" " * 2**20) for _ in range(megabytes)) + packer.flush()


def _nested(depth: int, make: Callable[[Any], Any]) -> Any:
    data: Any = 1
    for _ in range(depth):
        data = make(data)
    return data


def _costly(chance: random.Random) -> dict[str, Callable[[], Any]]:
    prime, item = 2**61 - 1, f"{APP}:Item"
    shape = encode(app.Item())["shape"]  # type: ignore[index, call-overload]
    pairs = [[k * prime, 1] for k in range(_SIZE // 25)]
    return {
        "keys of one hash": lambda: {TAG: "dict", "value": pairs},
        "elements of one hash": lambda: {TAG: "set", "value": [key for key, _ in pairs]},
        "decimals of one hash": lambda: {
            TAG: "set", "value": [{TAG: "decimal", "value": str(k)} for k, _ in pairs[:40_000]]},
        "a fraction with an exponent": lambda: {TAG: "fraction", "value": "1e100000000"},
        "ranges without regard to case": lambda: {
            TAG: "pattern", "value": "[\u0100-\uffff]" * (_SIZE // 20), "flags": 2},
        "inline flags": lambda: {TAG: "pattern", "value": "(?i)" + "[\\x00-\\U0010ffff]" * 1_000, "flags": 0},
        "many patterns": lambda: [{TAG: "pattern", "value": f"(a?){{{n}}}" * 20, "flags": 0} for n in range(10_000)],
        "instances without fields": lambda: {
            TAG: "list", "of": {TAG: "model", "type": item, "shape": shape}, "value": [{}] * (_SIZE // 4)},
        "instances with a field": lambda: {
            TAG: "list", "of": {TAG: "model", "type": item, "shape": shape}, "value": [{"sku": ""}] * (_SIZE // 12)},
        "generic classes": lambda: [
            {TAG: "model", "type": {"generic": f"{APP}:Page", "of": [{"literal": [n]}]}, "value": {}}
            for n in range(20_000)],
        "a type of many parts": lambda: {
            TAG: "model", "type": {"generic": f"{APP}:Page", "of": [{"literal": list(range(100_000))}]}, "value": {}},
        "a deep type": lambda: {TAG: "type", "name": _nested(300, lambda it: {"generic": "builtins:list", "of": [it]})},
        "deep lists": lambda: _nested(900, lambda it: [it]),
        "deep tuples": lambda: _nested(450, lambda it: {TAG: "tuple", "value": [it]}),
        "deep partials": lambda: _nested(300, lambda it: {
            TAG: "function", "partial": _ADD, "arguments": [it], "keywords": {}}),
        "flags": lambda: [{TAG: "enum", "type": f"{LIBRARY}:Flags", "value": 2**200 + n} for n in range(20_000)],
        "a large integer": lambda: {TAG: "int", "value": "f" * _SIZE},
        "a long address": lambda: {TAG: "ip", "class": "IPv6Address", "value": ":" * _SIZE},
        "a long zone": lambda: {TAG: "zone", "value": "a/" * 100_000},
        "a long name": lambda: {TAG: "model", "type": "x" * _SIZE, "value": {}},
        "a long tag": lambda: {TAG: "x" * _SIZE},
    }  # fmt: skip


@attack
async def costs_of_payloads(turns: Turns) -> Figures:
    """Payloads of Temporal's size that would take minutes or gigabytes to read."""
    figures = Figures()
    warm_up()
    costly = list(_costly(turns.random).items())
    turns.random.shuffle(costly)
    for name, make in costly:  # all of them, however little time there is
        data = make()
        figures.tried += 1
        began = time.thread_time()
        figures.seen[_outcome(name, data, figures)] += 1
        took = time.thread_time() - began
        tracemalloc.start()
        _outcome(name, data, figures)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        figures.measure("seconds of processor time to read a payload", took)
        figures.measure("bytes to read a payload", peak)
        if took > SECONDS_PER_INPUT:
            figures.breaks("a payload is read within seconds", f"{took:.1f} s of processor time for {name}")
        if peak > MOST_BYTES:
            figures.breaks("a payload is read within its memory", f"{peak:,} bytes for {name}")
    return figures


def _outcome(name: str, data: Any, figures: Figures) -> str:
    try:
        read(data)
    except SteporalError as err:
        if len(str(err)) > 5_000:
            figures.breaks("an error message is short", f"{len(str(err))} of {name}")
        return "refused"
    return "read"


@attack
async def packed_payloads(turns: Turns) -> Figures:
    """Compressed state that grows a thousandfold."""
    figures, bomb = Figures(), _bomb(256)
    for number in turns:
        packed = bomb if number % 2 == 0 else _spoilt(turns.random)
        figures.tried += 1
        tracemalloc.start()
        try:
            unpack_json(packed)
            figures.seen["read"] += 1
        except ValueError:
            figures.seen["refused"] += 1
        try:
            read_run_state({"zlib": packed.hex()})
            figures.breaks("what is no state of a run is refused", packed[:100])
        except ValueError:
            figures.seen["refused"] += 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        figures.measure("bytes to unpack", peak)
        if peak > MOST_BYTES:
            figures.breaks("what is unpacked has a bound", f"{peak:,} bytes")
    return figures


def _spoilt(chance: random.Random) -> bytes:
    packed = bytearray(zlib.compress(json.dumps({"is_parked": False, "started": 1, "seed": "f"}).encode()))
    for _ in range(chance.randrange(1, 4)):
        packed[chance.randrange(len(packed))] = chance.randrange(256)
    return bytes(packed[: chance.randrange(1, len(packed) + 1)])
