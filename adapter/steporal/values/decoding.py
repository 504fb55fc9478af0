"""Decoding of values: rebuilt as they were, and validated only if their class has changed since.

Whoever can write to the namespace chooses the data. So the cost of reading it is limited before it is spent, and the
only code that it runs belongs to the app's own classes: see ``known_types``.
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from types import MemberDescriptorType
from typing import Any, cast

import pydantic

from ..errors import SteporalError
from ..types import JSON
from .annotated import annotation_of
from .converter import bounded_validator, dumps, issues, validate
from .encoding import (
    FACTORIES,
    MAX_DEPTH,
    MAX_EMPTY,
    MAX_FLAG,
    MAX_GENERICS,
    MAX_SAME_HASH,
    TAG,
    encode,
    has_same_hashes,
)
from .known_types import compares_by_code, is_foreign
from .leaves import LOADERS, MAX_PATTERN_COST, pattern_cost, read_pattern
from .readable import plain
from .recursive_unions import bounded
from .shapes import Shape, shape_of
from .type_names import TypeNotFoundError, allow, find_data_class, shown, type_label

_SET_TAGS: dict[str, Callable[[list[Any]], Any]] = {"set": set, "frozenset": frozenset}
_MAPPING_TAGS: dict[str, type] = {"dict": dict, "ordereddict": OrderedDict, "counter": Counter}
_SECRET_TAGS: dict[str, Callable[[Any], Any]] = {
    "str": pydantic.SecretStr,
    "bytes": pydantic.SecretBytes,
    "any": pydantic.Secret,
}

Decoder = Callable[[dict[str, JSON]], Any]
"""Function that decodes an object whose tag this module does not know."""


def decode(data: JSON, other: Decoder | None = None, packages: Collection[str] = ()) -> Any:
    """Return the value that was passed to :func:`encode`.

    Args:
        data: The result of ``encode``.
        other: Decodes the tags of the ``other`` that was passed to ``encode``.
        packages: The app's packages, whose classes a value may have, beside those that ``known_types`` lists.

    Raises:
        TypeNotFoundError: The data names a class that this process does not have, that a value may not have, or that
            has changed so that the value does not fit it; or the data was not written by ``encode``.
    """
    try:
        return _Decoding(other, packages).value(data)
    except SteporalError:
        raise
    except Exception as err:  # may come from the app's own classes
        text = str(err)[:_MAX_TEXT]
        raise TypeNotFoundError(f"a value is not in Steporal's format: {type(err).__name__}: {text}") from None


_SCALARS = (str, int, float, bool, type(None))
_MAX_TEXT = 500
_MAX_LEVELS = 2 * MAX_DEPTH  # a level of a value may be two of its JSON


class _Decoding:
    """One pass over encoded data."""

    __slots__ = ("_empty", "_generics", "_keys", "_kinds", "_level", "_other", "_packages", "_pattern_cost")

    def __init__(self, other: Decoder | None, packages: Collection[str]) -> None:
        self._other = other
        self._packages = packages
        self._kinds: dict[str | bytes, Any] = {}
        self._level = 0
        self._keys = 0
        self._empty = 0
        self._generics = 0
        self._pattern_cost = 0

    def value(self, data: JSON) -> Any:
        kind = type(data)
        if kind is not list and kind is not dict:
            return data
        self._level += 1
        if self._level > _MAX_LEVELS:
            raise TypeNotFoundError(f"a value is nested more than {MAX_DEPTH} levels deep")
        if kind is list:
            value: Any = [self.value(item) for item in data]
        elif (tag := data.get(TAG)) is None:
            value = self._values(data)
        elif tag == "model":
            value = self.model(data)
        elif (load := LOADERS.get(tag)) is not None:
            if tag == "pattern":
                self._check_pattern(data)
            value = load(data)
        elif (read := _TAGS.get(tag)) is not None:
            value = read(self, data)
        elif self._other is not None:
            value = self._other(data)
        else:
            raise TypeNotFoundError(f"a value is tagged {shown(tag)}, which this version of steporal does not know")
        self._level -= 1
        return value

    def _check_pattern(self, data: dict[str, JSON]) -> None:
        self._pattern_cost += pattern_cost(*read_pattern(data))
        if self._pattern_cost > MAX_PATTERN_COST:
            raise TypeNotFoundError("a value has more patterns than steporal sends")

    def _class(self, data: dict[str, JSON]) -> tuple[Any, type]:
        name = data["type"]
        key = name if type(name) is str else dumps(name)
        named = self._kinds.get(key)
        if named is None:
            self._generics += key is not name
            if self._generics > MAX_GENERICS:  # a generic model creates a class for each set of parameters
                raise TypeNotFoundError(f"a value names more than {MAX_GENERICS} generic classes")
            named = self._kinds[key] = find_data_class(name, self._packages)
        kind = typing.get_origin(named) or named
        if self._keys and self._is_foreign(kind) and compares_by_code(kind):
            raise TypeNotFoundError(f"a {type_label(kind)} in a key would be compared by code outside of the app")
        return named, kind

    def _shape(self, kind: type, tag: str) -> Shape:
        """Return the shape of a class, which must be of the kind that the data names."""
        shape = shape_of(kind)
        if shape.tag != tag:
            raise TypeNotFoundError(f"{type_label(kind)} is a {shape.tag}, not a {tag}")
        return shape

    def _is_foreign(self, kind: type) -> bool:
        return is_foreign(kind, self._packages)

    def _values(self, data: Any) -> dict[str, Any]:
        value = self.value
        return {name: value(item) if type(item) is dict or type(item) is list else item for name, item in data.items()}

    def _fields(self, data: Any, kind: type) -> dict[str, Any]:
        value = self.value
        return {
            name: self._field(item, kind, name) if type(item) is dict else value(item) if type(item) is list else item
            for name, item in data.items()
        }

    def _field(self, data: Any, kind: type, name: str) -> Any:
        if data.get(TAG) != "annotated" or self._is_foreign(kind):
            return self.value(data)
        annotation = annotation_of(kind, name)
        try:
            return data["value"] if annotation is None else validate(data["value"], annotation)
        except pydantic.ValidationError as err:
            raise TypeNotFoundError(
                f"field {name!r} of {type_label(kind)} has changed since this value was encoded, and the value no "
                f"longer fits it: {issues(err)}"
            ) from None

    def sequence(self, data: dict[str, JSON]) -> Any:
        if data[TAG] == "tuple":
            return tuple([self.value(item) for item in data["value"]])
        self._keys += 1
        items = [self.value(item) for item in data["value"]]
        self._keys -= 1
        _check_hashes(items)
        return _SET_TAGS[data[TAG]](items)

    def _pairs(self, data: dict[str, JSON]) -> list[tuple[Any, Any]]:
        pairs: list[tuple[Any, Any]] = []
        for key, item in data["value"]:
            self._keys += 1
            read = self.value(key)
            self._keys -= 1
            pairs.append((read, self.value(item)))
        _check_hashes(key for key, _ in pairs)
        return pairs

    def mapping(self, data: dict[str, JSON]) -> Any:
        return _MAPPING_TAGS[data[TAG]](dict(self._pairs(data)))

    def default_mapping(self, data: dict[str, JSON]) -> Any:
        factory = data["factory"]
        return defaultdict(None if factory is None else FACTORIES[factory], self._pairs(data))

    def queue(self, data: dict[str, JSON]) -> Any:
        return deque([self.value(item) for item in data["value"]], data["maxlen"])

    def secret(self, data: dict[str, JSON]) -> Any:
        return _SECRET_TAGS[data["of"]](self.value(data["value"]))

    def member(self, data: dict[str, JSON]) -> Any:
        _, kind = self._class(data)
        if enum.Enum not in kind.__mro__:
            raise TypeNotFoundError(f"{type_label(kind)} is not an enum")
        members = cast(type[enum.Enum], kind)
        member = members.__members__.get(data["name"]) if "name" in data else None
        if member is not None and ("value" not in data or self._is_of_value(member, data["value"])):
            return member
        level, keys = self._level, self._keys
        try:
            return self._member_of_value(members, data["value"])
        except (ValueError, KeyError) as err:
            self._level, self._keys = level, keys
            if member is not None:
                return member  # its value has been edited
            known = data.get("name", data.get("value"))
            raise TypeNotFoundError(
                f"{type_label(kind)} has no member {shown(known)}; was it renamed or removed?"
            ) from err

    def _is_of_value(self, member: enum.Enum, data: JSON) -> bool:
        content = member.value
        if type(content) in _SCALARS or not self._is_foreign(type(member)):
            return bool(encode(content) == data)
        return True  # of another package, whose values are not inspected

    def _member_of_value(self, members: type[enum.Enum], data: JSON) -> enum.Enum:
        if type(data) is int and not -MAX_FLAG < data < MAX_FLAG:  # Python keeps each combination of flags
            raise ValueError("too many flags")
        if not self._is_foreign(members):
            return members(self.value(data))
        if type(data) not in _SCALARS:
            raise ValueError("not a plain value")
        return enum.EnumMeta.__call__(members, data)

    def namedtuple(self, data: dict[str, JSON]) -> Any:
        _, kind = self._class(data)
        shape, values = self._shape(kind, "namedtuple"), self._fields(data["value"], kind)
        if data.get("shape") == shape.digest and tuple(values) == kind._fields:  # type: ignore[attr-defined]
            return tuple.__new__(kind, values.values())
        return self._changed(data, kind, values)

    def dataclass(self, data: dict[str, JSON]) -> Any:
        alias, kind = self._class(data)
        shape, values = self._shape(kind, "dataclass"), self._fields(data["value"], kind)
        if data.get("shape") != shape.digest:
            return self._changed(data, kind, values)
        instance = self._dataclass_instance(data, kind, shape, values)
        if alias is not kind:
            object.__setattr__(instance, "__orig_class__", alias)
        return instance

    def _dataclass_instance(self, data: dict[str, JSON], kind: type, shape: Shape, values: dict[str, Any]) -> Any:
        instance: Any = object.__new__(kind)
        self._count_empty(values)
        _set_slots(instance, shape, values)
        if values:
            object.__getattribute__(instance, "__dict__").update(values)
        return instance

    def _count_empty(self, values: dict[str, Any]) -> None:
        if not values:
            self._empty += 1
            if self._empty > MAX_EMPTY:
                raise TypeNotFoundError(f"a value has more than {MAX_EMPTY:,} instances without any field")

    def model(self, data: dict[str, JSON]) -> Any:
        _, kind = self._class(data)
        return self._instance(data, kind, self._shape(kind, data[TAG]), self._fields(data["value"], kind))

    def group(self, data: dict[str, JSON]) -> Any:
        head = data["of"]
        alias, kind = self._class(head)
        shape = self._shape(kind, "model" if head[TAG] == "model" else "dataclass")
        make = self._instance if head[TAG] == "model" else self._dataclass_instance
        if head["shape"] != shape.digest or alias is not kind:
            return [self.value({**head, "value": fields}) for fields in data["value"]]
        return [make(head, kind, shape, self._fields(fields, kind)) for fields in data["value"]]

    def _instance(self, data: dict[str, JSON], kind: type, shape: Shape, values: dict[str, Any]) -> Any:
        extra = dict(self._pairs({"value": data["extra"]})) if data.get("extra") else None
        private = self._values(data["private"]) if "private" in data else None
        if data.get("shape") != shape.digest:
            return self._changed(data, kind, {**values, **(extra or {})}, private)
        if extra is None and ("extra" in data) != shape.has_extra:
            extra = {}
        instance: Any = object.__new__(kind)
        self._count_empty(values)
        _set_slots(instance, shape, values)
        set_attribute = object.__setattr__
        set_attribute(instance, "__pydantic_fields_set__", _fields_set(data, values))
        set_attribute(instance, "__dict__", values)
        if shape.tag == "model":
            set_attribute(instance, "__pydantic_extra__", extra)
        if shape.tag == "model" or private is not None:
            set_attribute(instance, "__pydantic_private__", private)
        return instance

    def _changed(
        self, data: dict[str, JSON], kind: type, values: dict[str, Any], private: dict[str, Any] | None = None
    ) -> Any:
        """Return a value of a class that has changed since: validated by its field names."""
        if self._is_foreign(kind):
            raise TypeNotFoundError(
                f"{type_label(kind)} has changed since this value was encoded, and only classes of the app are "
                f"validated in that case; {allow(kind)}"
            )
        whole = values["root"] if data[TAG] == "root" else values
        try:
            value = validated(whole, data, kind)
        except pydantic.ValidationError as err:
            raise TypeNotFoundError(
                f"{type_label(kind)} has changed since this value was encoded, and the value no longer fits it: "
                f"{issues(err)}"
            ) from None
        if isinstance(value, pydantic.BaseModel):
            value.__pydantic_fields_set__.difference_update(data.get("unset", ()))
            kept = value.__pydantic_private__ or {}
            kept.update({name: value for name, value in (private or {}).items() if name in kept})
        elif dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
                if not field.init and field.name in values:
                    object.__setattr__(value, field.name, values[field.name])
        return value


def _set_slots(instance: Any, shape: Shape, values: dict[str, Any]) -> None:
    """Move the values of slots from ``values`` to the instance, even if a class attribute has the same name."""
    for name in shape.slots:
        if name not in values:
            continue
        slot = next((vars(cls)[name] for cls in type(instance).__mro__ if name in vars(cls)), None)
        if type(slot) is MemberDescriptorType:
            slot.__set__(instance, values.pop(name))
        else:
            object.__setattr__(instance, name, values.pop(name))


def _check_hashes(keys: Iterable[Any]) -> None:
    if has_same_hashes(keys):
        raise TypeNotFoundError(f"a value has more than {MAX_SAME_HASH} keys with the same hash")


def _fields_set(data: dict[str, JSON], values: dict[str, Any]) -> set[str]:
    if "set" in data:
        return set(data["set"])
    return set(values).difference(data["unset"]) if "unset" in data else set(values)


_TAGS: dict[str, Callable[[_Decoding, dict[str, JSON]], Any]] = {
    "root": _Decoding.model,
    "dataclass": _Decoding.dataclass,
    "namedtuple": _Decoding.namedtuple,
    "enum": _Decoding.member,
    "list": _Decoding.group,
    "secret": _Decoding.secret,
    "deque": _Decoding.queue,
    "defaultdict": _Decoding.default_mapping,
    "float": lambda _, data: float(data["value"]),
    "int": lambda _, data: int(data["value"], 16),
    **dict.fromkeys(("tuple", *_SET_TAGS), _Decoding.sequence),
    **dict.fromkeys(_MAPPING_TAGS, _Decoding.mapping),
}


def validated(value: Any, data: JSON, kind: Any) -> Any:
    """Return ``value`` as a value of ``kind``: validated as it is, or otherwise as its plain JSON.

    Args:
        value: The value, with fields by their names.
        data: The same value, encoded.
        kind: The type.

    Raises:
        pydantic.ValidationError: The value does not fit.
    """
    checked, size = bounded_validator(kind), len(dumps(data))
    try:
        with bounded(kind, size, is_json=False):
            return checked.validate_python(value, by_name=True, by_alias=True)
    except pydantic.ValidationError as err:
        try:
            with bounded(kind, size, is_json=True):
                return checked.validate_json(dumps(plain(data, reveal=True)), by_name=True, by_alias=True)
        except pydantic.ValidationError:
            raise err from None
