"""From encoded data to values: rebuilt as they were, and validated only where their class has changed since."""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection
from typing import Any, cast

import pydantic

from .annotated import annotation_of
from .converter import bounded_validator, dumps, issues, validate
from .encoding import FACTORIES, TAG, encode
from .errors import SteporalError
from .leaves import LOADERS
from .readable import plain
from .shapes import Shape, shape_of
from .type_names import TypeNotFoundError, find_data_class, type_label
from .types import JSON

_SEQUENCE_TAGS: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_MAPPING_TAGS: dict[str, type] = {"dict": dict, "ordereddict": OrderedDict, "counter": Counter}
_SECRET_TAGS: dict[str, Callable[[Any], Any]] = {
    "str": pydantic.SecretStr,
    "bytes": pydantic.SecretBytes,
    "any": pydantic.Secret,
}

Decoder = Callable[[dict[str, JSON]], Any]
"""Decodes an object whose tag this module does not know."""


def decode(data: JSON, other: Decoder | None = None, packages: Collection[str] = ()) -> Any:
    """Return the value that :func:`encode` was given.

    Args:
        data: What ``encode`` returned.
        other: Decodes the tags of the ``other`` that ``encode`` was given.
        packages: Top-level packages from which a class may be imported if its module is not loaded yet.

    Raises:
        TypeNotFoundError: It names a class that this process does not have, or that has changed so that the value
            does not fit it; or it is not as ``encode`` writes it.
    """
    try:
        return _Decoding(other, packages).value(data)
    except SteporalError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as err:
        raise TypeNotFoundError(
            f"a value is not in the format that steporal writes: {type(err).__name__}: {err}"
        ) from err


class _Decoding:
    """One pass over encoded data."""

    __slots__ = ("_found", "_other", "_packages")

    def __init__(self, other: Decoder | None, packages: Collection[str]) -> None:
        self._other = other
        self._packages = packages
        self._found: dict[str, Any] = {}

    def value(self, data: JSON) -> Any:
        kind = type(data)
        if kind is list:
            return [self.value(item) for item in data]
        if kind is not dict:
            return data
        tag = data.get(TAG)
        if tag is None:
            return self._values(data)
        if tag == "model":
            return self.model(data)
        if tag in LOADERS:
            return LOADERS[tag](data)
        load = _TAGS.get(tag)
        if load is not None:
            return load(self, data)
        if self._other is not None:
            return self._other(data)
        raise TypeNotFoundError(f"a value is tagged {tag!r}, which this version of steporal does not know")

    def _class(self, data: dict[str, JSON]) -> tuple[Any, type]:
        name = data["type"]
        if type(name) is str:
            found = self._found.get(name)
            if found is None:
                found = self._found[name] = find_data_class(name, self._packages)
            return found, found
        found = find_data_class(name, self._packages)
        return found, typing.get_origin(found) or found

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
        if data.get(TAG) != "annotated":
            return self.value(data)
        annotation = annotation_of(kind, name)
        try:
            return data["value"] if annotation is None else validate(data["value"], annotation)
        except pydantic.ValidationError as err:
            raise TypeNotFoundError(
                f"field {name!r} of {type_label(kind)} has changed since this value was encoded, and the value does "
                f"not fit it any more: {issues(err)}"
            ) from None

    def sequence(self, data: dict[str, JSON]) -> Any:
        return _SEQUENCE_TAGS[data[TAG]]([self.value(item) for item in data["value"]])

    def _pairs(self, data: dict[str, JSON]) -> list[tuple[Any, Any]]:
        return [(self.value(key), self.value(item)) for key, item in data["value"]]

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
        members = cast(type[enum.Enum], kind)
        member = members.__members__.get(data["name"]) if "name" in data else None
        if member is not None and ("value" not in data or encode(member.value) == data["value"]):
            return member
        try:
            return members(self.value(data["value"]))
        except (ValueError, KeyError) as err:
            if member is not None:
                return member  # its value was edited
            known = data.get("name", data.get("value"))
            raise TypeNotFoundError(f"{type_label(kind)} has no member {known!r}; was it renamed or removed?") from err

    def namedtuple(self, data: dict[str, JSON]) -> Any:
        _, kind = self._class(data)
        values = self._fields(data["value"], kind)
        if data.get("shape") == shape_of(kind).digest:
            return tuple.__new__(kind, values.values())
        return self._changed(data, kind, values)

    def dataclass(self, data: dict[str, JSON]) -> Any:
        alias, kind = self._class(data)
        values = self._fields(data["value"], kind)
        shape = shape_of(kind)
        if data.get("shape") != shape.digest:
            return self._changed(data, kind, values)
        made = self._dataclass_instance(data, kind, shape, values)
        if alias is not kind:
            object.__setattr__(made, "__orig_class__", alias)
        return made

    def _dataclass_instance(self, data: dict[str, JSON], kind: type, shape: Shape, values: dict[str, Any]) -> Any:
        made: Any = object.__new__(kind)
        if shape.slots:
            for name, value in values.items():
                object.__setattr__(made, name, value)
        else:
            made.__dict__.update(values)
        return made

    def model(self, data: dict[str, JSON]) -> Any:
        _, kind = self._class(data)
        return self._instance(data, kind, shape_of(kind), self._fields(data["value"], kind))

    def group(self, data: dict[str, JSON]) -> Any:
        head = data["of"]
        alias, kind = self._class(head)
        shape, make = shape_of(kind), self._instance if head[TAG] == "model" else self._dataclass_instance
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
        made: Any = object.__new__(kind)
        set_attribute = object.__setattr__
        for slot in shape.slots:
            if slot in values:
                set_attribute(made, slot, values.pop(slot))
        set_attribute(made, "__pydantic_fields_set__", _fields_set(data, values))
        set_attribute(made, "__dict__", values)
        if shape.tag == "model":
            set_attribute(made, "__pydantic_extra__", extra)
        if shape.tag == "model" or private is not None:
            set_attribute(made, "__pydantic_private__", private)
        return made

    def _changed(
        self, data: dict[str, JSON], kind: type, values: dict[str, Any], private: dict[str, Any] | None = None
    ) -> Any:
        """A value of a class that has changed since: validated by its field names."""
        whole = values["root"] if data[TAG] == "root" else values
        try:
            made = validated(whole, data, kind)
        except pydantic.ValidationError as err:
            raise TypeNotFoundError(
                f"{type_label(kind)} has changed since this value was encoded, and the value does not fit it any more: "
                f"{issues(err)}"
            ) from None
        if isinstance(made, pydantic.BaseModel):
            made.__pydantic_fields_set__.difference_update(data.get("unset", ()))
            kept = made.__pydantic_private__ or {}
            kept.update({name: value for name, value in (private or {}).items() if name in kept})
        elif dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
                if not field.init and field.name in values:
                    object.__setattr__(made, field.name, values[field.name])
        return made


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
    **dict.fromkeys(_SEQUENCE_TAGS, _Decoding.sequence),
    **dict.fromkeys(_MAPPING_TAGS, _Decoding.mapping),
}


def validated(value: Any, data: JSON, kind: Any) -> Any:
    """Return ``value`` as a value of ``kind``: validated as it is, or else as its plain JSON.

    Args:
        value: The value, whose fields go by their names.
        data: The same, encoded.
        kind: The type.

    Raises:
        pydantic.ValidationError: It does not fit.
    """
    checked = bounded_validator(kind)
    try:
        return checked.validate_python(value, by_name=True, by_alias=True)
    except pydantic.ValidationError as err:
        try:
            return checked.validate_json(dumps(plain(data, reveal=True)), by_name=True, by_alias=True)
        except pydantic.ValidationError:
            raise err from None
