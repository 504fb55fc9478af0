"""Values of the standard library and of pydantic that are written as one text or a few parts.

Each is found by its exact class. A subclass is another type, which may hold more than its base.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, cast
from zoneinfo import ZoneInfo

import pydantic
import pydantic.networks
from pydantic_core import MultiHostUrl, TzInfo, Url

from ..errors import UnserializableError
from ..types import JSON
from .type_names import TypeNotFoundError, shown, type_label

TAG = "$"

MAX_INT = 10**4000
"""Size from which integers are written in hexadecimal: Python neither prints nor parses more than 4,300 digits."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """Encoding of the values of one class.

    Attributes:
        tag: The tag of the encoded object.
        dump: Returns the tagged object; raises an :class:`UnserializableError` for values that it rejects.
        load: Returns the value of such an object.
    """

    tag: str
    dump: Callable[[Any], dict[str, JSON]]
    load: Callable[[dict[str, JSON]], Any]


# --- parts of leaves -----------------------------------------------------------------------------------------------

_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
_MAX_ZONE = 100
_FRACTION = re.compile(r"-?[0-9]+(/[0-9]+)?")  # Fraction("1e999999999") would be computed

MAX_PATTERN_COST = 20_000
"""Limit of the cost of compiling the patterns of one value: a character costs 1, about 20 µs."""
_COST_OF_RANGE = 2_000
_IGNORES_CASE = re.compile(r"\(\?[aLmsux]*i")
_IS_WIDE = re.compile(r"\\[0-9xuUN]|[^\x00-\x7f]")


def _text(value: JSON) -> str:
    if type(value) is not str:
        raise TypeError(f"{shown(value)} is not a text")
    return value


def _whole(value: JSON) -> int:
    if type(value) is not int:
        raise TypeError(f"{shown(value)} is not an integer")
    return value


def pattern_cost(pattern: str | bytes, flags: int) -> int:
    """Return the cost of compiling a pattern.

    For case-insensitive patterns, Python inspects each character of each range, such as 65,000 for
    ``[\\u0100-\\uffff]``.
    """
    text = pattern if isinstance(pattern, str) else pattern.decode("latin-1")
    ignores_case = flags & re.IGNORECASE or _IGNORES_CASE.search(text)
    is_wide = ignores_case and isinstance(pattern, str) and _IS_WIDE.search(text)
    return len(text) + (_COST_OF_RANGE * text.count("-") if is_wide else 0)


def unicode(text: str) -> str:
    """Return a text after checking it.

    Raises:
        UnserializableError: The text has a lone surrogate, as in a path that is not UTF-8.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UnserializableError(
                "contains a lone surrogate, which is not valid Unicode; send the bytes, or replace it"
            ) from None
    return text


def _printable(value: int) -> int:
    """Return an integer after checking it.

    Raises:
        UnserializableError: The integer has more digits than Python prints.
    """
    if not -MAX_INT < value < MAX_INT:
        raise UnserializableError("has an integer of thousands of digits; send the integer itself")
    return int(value)


# --- times ---------------------------------------------------------------------------------------------------------


def zone_json(zone: tzinfo) -> JSON:
    """Return a time zone as JSON.

    Raises:
        UnserializableError: The zone has no name or offset by which it can be restored.
    """
    kind = type(zone)
    if kind is ZoneInfo:
        key: str | None = zone.key  # type: ignore[attr-defined]
        if key is not None:
            return key
    if kind is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return {"offset": offset.total_seconds(), **({"name": unicode(name[0])} if name else {})}
    if kind is TzInfo:
        return {"pydantic": round(cast(timedelta, zone.utcoffset(None)).total_seconds())}
    raise UnserializableError(
        f"cannot be sent: the time zone {type_label(kind)} has no name to find it by; use a zoneinfo.ZoneInfo or a "
        "datetime.timezone"
    )


def read_zone(data: JSON) -> tzinfo:
    """Return the time zone that was passed to :func:`zone_json`.

    Raises:
        TypeNotFoundError: This machine has no such zone.
    """
    if isinstance(data, str):
        if len(data) > _MAX_ZONE or not _ZONE.fullmatch(data):  # ZoneInfo would look for a module of this name
            raise TypeNotFoundError(f"{shown(data)} is not the name of a time zone")
        try:
            return ZoneInfo(data)
        except (KeyError, ValueError, OSError) as err:
            raise TypeNotFoundError(f"this machine has no time zone {data!r}; install the package tzdata") from err
    if "pydantic" in data:
        return TzInfo(_whole(data["pydantic"]))
    offset = timedelta(seconds=data["offset"])
    if "name" in data:
        return timezone(offset, _text(data["name"]))
    return timezone(offset) if offset else UTC


def _dump_time(value: datetime | time) -> dict[str, JSON]:
    zone = value.tzinfo
    members: dict[str, JSON] = {TAG: "time" if isinstance(value, time) else "datetime", "value": value.isoformat()}
    if zone is not None and zone is not UTC:
        if isinstance(value, time):
            members["value"] = value.replace(tzinfo=None).isoformat()
        members["zone"] = zone_json(zone)
    if value.fold:
        members["fold"] = 1
    return members


def _load_time(kind: type[datetime] | type[time]) -> Callable[[dict[str, JSON]], Any]:
    def load(members: dict[str, JSON]) -> Any:
        value = kind.fromisoformat(_text(members["value"]))
        if "zone" in members:
            value = value.replace(tzinfo=read_zone(members["zone"]))
        return value.replace(fold=1) if "fold" in members else value

    return load


# --- paths and addresses -------------------------------------------------------------------------------------------

_PATHS: dict[type, str] = {
    PosixPath: "Path",
    WindowsPath: "Path",
    PurePosixPath: "PurePosixPath",
    PureWindowsPath: "PureWindowsPath",
}


def _load_path(members: dict[str, JSON]) -> PurePath:
    import pathlib  # in a body that of the sandbox, whose paths do no I/O

    if members["class"] not in _PATHS.values():
        raise TypeNotFoundError(f"{shown(members['class'])} is not a path class that this version of steporal knows")
    path: PurePath = getattr(pathlib, members["class"])(_text(members["value"]))
    return path


_URLS: dict[str, type] = {
    name: kind
    for name, kind in vars(pydantic.networks).items()
    if isinstance(kind, type)
    and kind.__module__ == "pydantic.networks"
    and name.endswith(("Url", "Dsn"))
    and not name.startswith("_")
}
_ADDRESSES: tuple[type, ...] = (
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
)


def _text_leaf(tag: str, load: Callable[[str], Any]) -> Leaf:
    return Leaf(
        tag, lambda value: {TAG: tag, "value": unicode(str(value))}, lambda members: load(_text(members["value"]))
    )


def _classes(tag: str, classes: dict[str, type]) -> dict[type, Leaf]:
    def load(members: dict[str, JSON]) -> Any:
        kind = classes.get(members["class"])
        if kind is None:
            raise TypeNotFoundError(f"{shown(members['class'])} is not a {tag} that this version of steporal knows")
        return kind(_text(members["value"]))

    return _named_texts(tag, {kind: name for name, kind in classes.items()}, load)


def _named_texts(tag: str, names: dict[type, str], load: Callable[[dict[str, JSON]], Any]) -> dict[type, Leaf]:
    def dump(name: str) -> Callable[[Any], dict[str, JSON]]:
        return lambda value: {TAG: tag, "class": name, "value": unicode(str(value))}

    return {kind: Leaf(tag, dump(name), load) for kind, name in names.items()}


# --- the rest ------------------------------------------------------------------------------------------------------


def _base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode()


def read_pattern(members: dict[str, JSON]) -> tuple[str | bytes, int]:
    """Return the text and the flags of an encoded pattern, without the flag that makes Python print it."""
    text = _text(members["value"])
    return base64.b64decode(text) if members.get("bytes") else text, _whole(members["flags"]) & ~re.DEBUG


def _load_pattern(members: dict[str, JSON]) -> re.Pattern[Any]:
    return re.compile(*read_pattern(members))


def _dump_pattern(value: re.Pattern[Any]) -> dict[str, JSON]:
    if isinstance(value.pattern, bytes):
        return {TAG: "pattern", "value": _base64(value.pattern), "bytes": True, "flags": value.flags}
    return {TAG: "pattern", "value": unicode(value.pattern), "flags": value.flags}


def _dump_fraction(value: Fraction) -> dict[str, JSON]:
    return {TAG: "fraction", "value": f"{_printable(value.numerator)}/{_printable(value.denominator)}"}


def _dump_range(value: range) -> dict[str, JSON]:
    return {TAG: "range", "value": [_printable(value.start), _printable(value.stop), _printable(value.step)]}


def _dump_email(value: pydantic.NameEmail) -> dict[str, JSON]:
    return {TAG: "nameemail", "value": [unicode(value.name), unicode(value.email)]}


def _dump_timedelta(value: timedelta) -> dict[str, JSON]:
    return {TAG: "timedelta", "value": [value.days, value.seconds, value.microseconds]}


def _dump_zone(value: tzinfo) -> dict[str, JSON]:
    return {TAG: "zone", "value": zone_json(value)}


def _load_fraction(text: str) -> Fraction:
    if not _FRACTION.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a fraction")
    return Fraction(text)


def _load_zone(members: dict[str, JSON]) -> tzinfo:
    return read_zone(members["value"])


LEAVES: dict[type, Leaf] = {
    datetime: Leaf("datetime", _dump_time, _load_time(datetime)),
    time: Leaf("time", _dump_time, _load_time(time)),
    date: Leaf(
        "date", lambda v: {TAG: "date", "value": v.isoformat()}, lambda m: date.fromisoformat(_text(m["value"]))
    ),
    timedelta: Leaf("timedelta", _dump_timedelta, lambda m: timedelta(*map(_whole, m["value"]))),
    timezone: Leaf("zone", _dump_zone, _load_zone),
    ZoneInfo: Leaf("zone", _dump_zone, _load_zone),
    TzInfo: Leaf("zone", _dump_zone, _load_zone),
    uuid.UUID: _text_leaf("uuid", uuid.UUID),
    Decimal: _text_leaf("decimal", Decimal),
    Fraction: Leaf("fraction", _dump_fraction, lambda m: _load_fraction(_text(m["value"]))),
    bytes: Leaf("bytes", lambda v: {TAG: "bytes", "value": _base64(v)}, lambda m: base64.b64decode(_text(m["value"]))),
    bytearray: Leaf(
        "bytearray",
        lambda v: {TAG: "bytearray", "value": _base64(v)},
        lambda m: bytearray(base64.b64decode(_text(m["value"]))),
    ),
    complex: Leaf(
        "complex",
        lambda v: {TAG: "complex", "value": [repr(v.real), repr(v.imag)]},
        lambda m: complex(float(_text(m["value"][0])), float(_text(m["value"][1]))),
    ),
    range: Leaf("range", _dump_range, lambda m: range(*map(_whole, m["value"]))),
    re.Pattern: Leaf("pattern", _dump_pattern, _load_pattern),
    pydantic.ByteSize: Leaf(
        "bytesize",
        lambda v: {TAG: "bytesize", "value": _printable(v)},
        lambda m: pydantic.ByteSize(_whole(m["value"])),
    ),
    pydantic.NameEmail: Leaf("nameemail", _dump_email, lambda m: pydantic.NameEmail(*map(_text, m["value"]))),
    Url: _text_leaf("coreurl", Url),
    MultiHostUrl: _text_leaf("coreurls", MultiHostUrl),
    **_named_texts("path", _PATHS, _load_path),
    **_classes("url", _URLS),
    **_classes("ip", {kind.__name__: kind for kind in _ADDRESSES}),
}
LOADERS: dict[str, Callable[[dict[str, JSON]], Any]] = {leaf.tag: leaf.load for leaf in LEAVES.values()}
