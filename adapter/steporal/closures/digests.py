"""Short digests of the values of a step's call, equal in every process and Python version.

Names of classes, functions and modules are not part of a digest, so that they may be renamed while runs are in flight.
They are listed beside the digest, which contains their numbers in that list.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import hashlib
import inspect
import json
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import pydantic

from ..context import Context
from ..errors import UnserializableError
from ..types import JSON
from ..values.annotated import annotation_of, dump_annotated, same
from ..values.converter import to_json
from ..values.known_types import is_data
from ..values.leaves import LEAVES, MAX_INT
from ..values.shapes import Shape, shape_of
from ..values.type_names import name_of
from .renaming import Rename

_BYTES = 6
_DEEP = 200

_PLAIN = (bool, int, float, complex, str, bytes, tuple, *LEAVES)
_SECRETS = (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret)
_MAPPINGS: dict[type, str] = {OrderedDict: "ordered", Counter: "counter", defaultdict: "default"}
_MADE_BY_CLASS = (list, dict, set, tuple, frozenset, deque, OrderedDict, Counter)


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests and names of values.

    Attributes:
        values: A digest of the values.
        least: The same without fields that have their default; empty if there are no such fields.
        shapes: A digest of the fields of the values' classes; empty if no class has fields.
        named: The names of classes, functions and modules among the values, except in fields that have their default.
    """

    values: str
    least: str
    shapes: str
    named: tuple[str, ...]


def digest(*values: Any) -> str:
    """Return a digest of values."""
    return digests(values).values


def digest_of_text(text: bytes) -> str:
    """Return a digest of text."""
    return base64.urlsafe_b64encode(hashlib.sha256(text).digest()[:_BYTES]).decode()


def digests(
    values: Any, *, rename: Rename = str, names: Mapping[int, str] | None = None, is_json: bool = False
) -> Digests:
    """Return the digests and names of values.

    Args:
        values: The values.
        rename: Returns the text to read in place of a text in the values.
        names: The names of functions among the values, by ``id``.
        is_json: Whether the values are sent as plain JSON, where only the fields of a class matter.
    """
    reading = _Reading(rename, names or {}, is_json=is_json)
    reading.add(values)
    of_all, of_least = digest_of_text(b"".join(reading.parts)), ""
    if reading.defaults:
        minimal = reading
        if reading.has_hidden_defaults:
            minimal = _Reading(rename, names or {}, is_json=is_json, skips_defaults=True)
            minimal.add(values)
        of_least = digest_of_text(minimal.without_defaults())
    shapes = digest_of_text("".join(sorted(reading.shapes)).encode()) if reading.shapes else ""
    return Digests(of_all, of_least, shapes, () if is_json else tuple(reading.named))


class _Unknown(Exception):
    """Raised for a value whose type only the annotation of a field may describe."""


class _Reading:
    """One pass over values.

    Args:
        rename: Returns the text to read in place of a text.
        names: The names of functions, by ``id``.
        is_json: Whether to ignore classes and the kinds of containers.
        skips_defaults: Whether to ignore fields that have their default.

    Attributes:
        parts: The input of the digest.
        defaults: The ranges of ``parts`` for fields that have their default.
        has_hidden_defaults: Whether such fields occur in a part that is itself a digest.
        named: The names that occurred, in order, except in fields that have their default.
        shapes: The shapes of the classes that occurred.
    """

    def __init__(
        self, rename: Rename, names: Mapping[int, str], *, is_json: bool = False, skips_defaults: bool = False
    ) -> None:
        self._rename = rename
        self._names = names
        self._is_json = is_json
        self._skips_defaults = skips_defaults
        self._numbers: dict[Any, int] = {}
        self._numbers_in_defaults: dict[Any, int] = {}
        self._default_depth = 0
        self._fields = 0
        self._hashes = 0
        self._depth = 0
        self.parts: list[bytes] = []
        self.defaults: list[tuple[int, int]] = []
        self.has_hidden_defaults = False
        self.named: dict[str, None] = {}
        self.shapes: set[str] = set()

    def without_defaults(self) -> bytes:
        """Return the input of the digest without the fields that have their default."""
        kept, end = [], 0
        for start, stop in self.defaults:
            kept += self.parts[end:start]
            end = stop
        return b"".join([*kept, *self.parts[end:]])

    def add(self, value: Any) -> None:
        """Add a value."""
        kind = type(value)
        if kind is str:
            value = self._rename(value)
            self.parts.append(b"s%d:%b" % (len(value), value.encode("utf-8", "surrogatepass")))
        elif kind is int:
            self.parts.append(f"i{value if -MAX_INT < value < MAX_INT else hex(value)};".encode())
        elif value is None or kind in (bool, float, complex):
            self.parts.append(f"{kind.__name__[0]}{value!r};".encode())
        elif self._depth <= _DEEP:
            self._depth += 1
            self._add_larger(value, kind)
            self._depth -= 1

    def _add_larger(self, value: Any, kind: type) -> None:
        if kind is list:
            self._add_items(value)
        elif kind is dict:
            self._add_mapping(value, kind)
        elif (known := _class(kind)) is not None:
            self._add_instance(value, known)
        elif kind in (bytes, bytearray):
            renamed = self._rename(bytes(value).decode(errors="surrogateescape")).encode(errors="surrogateescape")
            self._mark("bytearray", kind is bytearray)
            self.parts.append(b"b" + repr(renamed).encode() + b";")
        elif isinstance(value, Mapping):
            self._add_mapping(value, kind)
        elif isinstance(value, list | tuple | deque):
            self._mark(f"deque{getattr(value, 'maxlen', None)}", kind is deque)
            self._mark("tuple", kind is tuple)
            self._add_items(value)
        elif isinstance(value, set | frozenset):
            self._mark("frozen", kind is frozenset)
            self._add_set(value)
        elif isinstance(value, functools.partial):
            self.parts.append(b"partial;")
            self._add_name(self._names.get(id(value)))
            self._add_items([value.func, list(value.args), value.keywords])
        elif isinstance(value, MethodType):
            self._add_name(self._names.get(id(value)))
            self._add_items([value.__name__, value.__self__])
        elif isinstance(value, FunctionType):
            self.parts.append(b"f;")
            self._add_name(self._names.get(id(value)), value.__code__)
        elif isinstance(value, Context):
            self.parts.append(b"context;")
            self.add(value.input.data)
        elif isinstance(value, type | ModuleType):
            self.parts.append(b"t;")
            self._add_name(_name(value), value)
        elif isinstance(value, _SECRETS):
            self._mark("secret")
            self.add(value.get_secret_value())
        elif (leaf := _leaf(value)) is not None:
            self._mark("leaf")
            self.add(leaf)
        elif self._is_json and (data := _json(value)) is not None:
            self.add(data)
        elif self._fields and not self._is_json:
            raise _Unknown
        else:
            self.parts.append(f"o{self._rename(_text(value))};".encode("utf-8", "surrogatepass"))

    # --- named things ------------------------------------------------------------------------------------------------

    def _mark(self, mark: str, is_needed: bool = True) -> None:
        if is_needed and not self._is_json:
            self.parts.append(f"#{mark};".encode())

    def _add_name(self, name: str | None, identity: Any = None) -> None:
        """Record a name, and add the number of the named thing, which is that of its first occurrence."""
        if self._is_json:
            return
        if name is not None and not self._default_depth:
            self.named[name] = None
        if identity is None or self._hashes:  # a set has no order, so only names distinguish the things in it
            return
        numbers, mark = self._numbers, b"@%d;"
        if self._default_depth and identity not in numbers:
            numbers, mark = self._numbers_in_defaults, b"@@%d;"
        self.parts.append(mark % numbers.setdefault(identity, len(numbers)))

    # --- containers --------------------------------------------------------------------------------------------------

    def _add_items(self, items: Iterable[Any]) -> None:
        self.parts.append(b"[")
        for item in items:
            self.add(item)
        self.parts.append(b"]")

    def _add_mapping(self, value: Mapping[Any, Any], kind: type) -> None:
        if kind is not dict:
            self._mark(_MAPPINGS.get(kind, ""), kind in _MAPPINGS)
            self._mark(repr(getattr(value, "default_factory", None)), kind is defaultdict)
        self.parts.append(b"{")
        if all(type(key) is str for key in value):
            for key in sorted(value):
                self.add(key)
                self.add(value[key])
        else:
            self.parts += sorted(self._hashed([key, item]) for key, item in value.items())
        self.parts.append(b"}")

    def _add_set(self, value: Any) -> None:
        named, self.named = self.named, {}
        hashes = sorted(map(self._hashed, value))
        self.named = {**named, **dict.fromkeys(sorted(self.named))}
        self.parts += [b"<", *hashes, b">"]

    def _hashed(self, value: Any) -> bytes:
        """Return a digest of a value in an unordered container."""
        parts, self.parts = self.parts, []
        self._hashes += 1
        try:
            self.add(value)
            return hashlib.sha256(b"".join(self.parts)).digest()
        finally:
            self._hashes -= 1
            self.parts = parts

    # --- instances ---------------------------------------------------------------------------------------------------

    def _add_instance(self, value: Any, known: _Class) -> None:
        alias = _attribute(value, "__orig_class__", None)  # Page[int](...): typing keeps the parameters there
        self._add_name(known.name if alias is None else _name(alias), known.kind)
        if known.is_enum:
            is_plain = value.value is None or isinstance(value.value, _PLAIN)
            self.add(value.value if is_plain else value.name)
            return
        if known.shape is not None:
            self.shapes.add(known.shape.digest)
        self.parts.append(b"{")
        fields = known.fields(value)
        for name in sorted(fields):
            if known.has_default(value, name, fields[name]):
                self._add_default(known.kind, name, fields[name])
            else:
                self._add_field(known.kind, name, fields[name])
        self.parts.append(b"}")

    def _add_default(self, kind: type, name: str, item: Any) -> None:
        if self._skips_defaults:
            return
        start = len(self.parts)
        self._default_depth += 1
        try:
            self._add_field(kind, name, item)
        finally:
            self._default_depth -= 1
        if self._hashes:
            self.has_hidden_defaults = True
        elif not self._default_depth:
            self.defaults.append((start, len(self.parts)))

    def _add_field(self, kind: type, name: str, item: Any) -> None:
        self.add(name)
        start, depth, defaults = len(self.parts), self._depth, len(self.defaults)
        self._fields += 1
        try:
            self.add(item)
        except _Unknown:
            del self.parts[start:], self.defaults[defaults:]
            self._depth = depth
            dumped = dump_annotated(item, annotation_of(kind, name))
            self.add(dumped[0] if dumped is not None else _text(item))
        finally:
            self._fields -= 1


@dataclass(frozen=True, slots=True)
class _Class:
    """Description of a data class for reading its instances.

    Attributes:
        kind: The class.
        name: The name by which :func:`.references.is_there` looks for the class, or None.
        shape: The shape of the class; None if the class has no name.
        is_enum: Whether it is an enum.
        declared: The default and the default factory of each field.
        settable: The fields for which a model records whether they were set.
    """

    kind: Any
    name: str | None
    shape: Shape | None
    is_enum: bool
    declared: Mapping[str, tuple[Any, Any]]
    settable: Collection[str]

    def fields(self, value: Any) -> dict[str, Any]:
        """Return everything in an instance: its fields, its private attributes, and added attributes."""
        if tuple in self.kind.__mro__:
            return dict(zip(value._fields, value, strict=True))
        fields: dict[str, Any] = dict(_attribute(value, "__dict__", {}))
        if self.shape is not None:
            for name in self.shape.slots:
                if (item := _attribute(value, name, _Class)) is not _Class:
                    fields[name] = item
            for name in self.shape.computed:
                fields.pop(name, None)
        fields.pop("__orig_class__", None)
        if isinstance(value, pydantic.BaseModel):
            for name in [name for name in fields if name.startswith("__pydantic_")]:  # of a RootModel
                del fields[name]
            fields |= {**(value.__pydantic_extra__ or {}), **(value.__pydantic_private__ or {})}
        return fields

    def has_default(self, value: Any, name: str, item: Any) -> bool:
        """Return whether a field has its default."""
        if (declared := self.declared.get(name)) is None:
            return False
        default, factory = declared
        try:
            if factory is None:
                return same(item, default)
            if factory not in _MADE_BY_CLASS and not is_data(factory):  # a function, which may take time
                is_unset = name in self.settable and name not in value.__pydantic_fields_set__
                return is_unset and not inspect.signature(factory).parameters and same(item, factory())
            return same(item, factory())
        except Exception:  # from a factory or an __eq__ of the user
            return False


_classes: WeakKeyDictionary[type, _Class] = WeakKeyDictionary()


def _class(kind: type) -> _Class | None:
    """Return the description of a data class; None for other types."""
    if (known := _classes.get(kind)) is not None:
        return known
    if not is_data(kind):
        return None
    shape = _shape(kind)
    known = _Class(kind, _name(kind), shape, enum.Enum in kind.__mro__, _declared(kind), _settable(kind))
    if getattr(kind, "__pydantic_complete__", True):
        _classes[kind] = known
    return known


def _declared(kind: Any) -> dict[str, tuple[Any, Any]]:
    if pydantic.BaseModel in kind.__mro__:
        infos = {**kind.model_fields, **kind.__private_attributes__}
        return {name: (info.default, info.default_factory) for name, info in infos.items()}
    if tuple in kind.__mro__:
        return {name: (default, None) for name, default in getattr(kind, "_field_defaults", {}).items()}
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    missing = dataclasses.MISSING
    factories = {each.name: None if each.default_factory is missing else each.default_factory for each in fields}
    return {each.name: (each.default, factories[each.name]) for each in fields}


def _settable(kind: Any) -> Collection[str]:
    return kind.model_fields if pydantic.BaseModel in kind.__mro__ else ()


def _attribute(value: Any, name: str, default: Any) -> Any:
    try:
        return object.__getattribute__(value, name)
    except AttributeError:
        return default


def _shape(kind: type) -> Shape | None:
    try:
        return shape_of(kind)
    except UnserializableError:  # the class cannot be found by name
        return None


def _name(value: Any) -> str | None:
    """Return the name by which :func:`.references.is_there` looks for a class or a module."""
    if isinstance(value, ModuleType):
        return f"module {value.__name__}"
    try:
        name = name_of(value)
    except UnserializableError:
        return None
    return name if isinstance(name, str) else json.dumps(name)


def _leaf(value: Any) -> dict[str, JSON] | None:
    """Return the complete encoded form of a leaf, such as a datetime, a Decimal or a path; None for other types."""
    leaf = LEAVES.get(type(value))
    try:
        return None if leaf is None else leaf.dump(value)
    except (UnserializableError, ValueError):
        return None


def _json(value: Any) -> JSON:
    """Return the JSON that pydantic writes for a value of another type; None if it cannot."""
    try:
        return to_json(value)
    except UnserializableError:
        return None


def _text(value: Any) -> str:
    """Return text for a value of another type."""
    try:
        text = str(value)
    except Exception:  # from a __str__ or __repr__ of the user
        return type(value).__name__
    return type(value).__name__ if " at 0x" in text else text
