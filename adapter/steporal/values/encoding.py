"""Encoding of values as JSON that preserves exactly what they were.

Values that JSON can express are written as they are. Everything else is written as ``{"$": tag, ...}``. Models and
dataclasses are taken apart into their fields, extra fields and private attributes. Serializers and aliases do not
apply, and decoding runs no validator. Only if a class has changed since the value was encoded is the value validated
anew.

A class is named by module and qualified name. Only data classes can be restored: those of the app, those that
``known_types`` lists, and, without running any of their code, those of packages that the app imports.
"""

from __future__ import annotations

import enum
import json
import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, NoReturn

import pydantic

from ..errors import UnencryptedSecretError, UnserializableError
from ..types import JSON
from .annotated import annotation_of, dump_annotated
from .converter import dumps
from .known_types import compares_by_code, is_data, is_foreign, package_of
from .leaves import LEAVES, MAX_INT, MAX_PATTERN_COST, TAG, pattern_cost, unicode
from .shapes import Shape, shape_of
from .type_names import find_data_class, name_of, shown, type_label

__all__ = ["FACTORIES", "MAX_DEPTH", "TAG", "Encoder", "always", "encode", "is_unchanged", "never"]

MAX_DEPTH = 150
"""Nesting limit of containers. Each level takes up to three levels of JSON, and Python reads about 1,000."""

MAX_SAME_HASH = 100
"""Limit of dict keys or set elements with the same hash: Python compares each of them with all others."""

MAX_EMPTY = 10_000
"""Limit of instances without any field: one takes three bytes of JSON, but hundreds of bytes of memory."""

MAX_FLAG = 1 << 128
"""Upper bound of flags: Python keeps each combination of flags that it has read, for ever."""

MAX_GENERICS = 100
"""Limit of generic classes with different parameters in a value: reading creates each class anew."""

_SANDBOX = "temporalio.worker.workflow_sandbox"

_SEQUENCES: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_MAPPINGS: dict[type, str] = {OrderedDict: "ordereddict", Counter: "counter"}
FACTORIES: dict[str, Any] = {kind.__name__: kind for kind in (list, dict, set, int, float, str, bool, tuple)}
_SECRETS: dict[type, str] = {
    pydantic.SecretStr: "str",
    pydantic.SecretBytes: "bytes",
    pydantic.Secret: "any",
}
_REFUSED_BASES = (str, int, float, list, dict, tuple, set, frozenset, bytes, bytearray, deque, *LEAVES)

_CONVERT = "convert it to JSON, a pydantic model or a dataclass"

Encoder = Callable[[Any], JSON | None]
"""Function that encodes a value that this module cannot encode, or returns None."""


def always() -> bool:
    """Return True: encode secrets as well, for values that are compared here and not sent."""
    return True


def never() -> bool:
    """Return False: payloads are not encrypted."""
    return False


def encode(
    value: Any,
    other: Encoder | None = None,
    *,
    secrets: Callable[[], bool] = never,
    packages: Collection[str] | None = None,
    instead: str = _CONVERT,
) -> JSON:
    """Return ``value`` as JSON that :func:`decode` can read.

    Args:
        value: The value.
        other: Encodes further types.
        secrets: Returns whether payloads are encrypted, so that secrets may be in them.
        packages: The app's packages, which determine the classes that a value may have. None allows all classes, for
            a value that is compared here and not sent.
        instead: The advice in the message about an instance of a class that cannot be sent.

    Raises:
        UnserializableError: A part of the value cannot be sent; the message contains the path and type of the part.
        UnencryptedSecretError: The value contains a secret, and payloads are not encrypted.
    """
    try:
        return _Encoding(other, secrets, packages, instead).value(value)
    except _Refusal as refusal:
        raise refusal.error() from None
    except RecursionError:
        raise UnserializableError(f"{type_label(type(value))} cannot be sent, as it is nested too deep") from None


def is_unchanged(encoded: JSON, value: Any) -> bool:
    """Return whether a value is identical to the JSON that :func:`encode` returned for it.

    ``encoded == value`` is not sufficient: a class may have an ``__eq__`` that is always true, or that raises.
    """
    kind = type(value)
    if type(encoded) is not kind:
        return False
    if kind is dict:
        return TAG not in encoded and all(map(is_unchanged, encoded.values(), value.values()))
    return all(map(is_unchanged, encoded, value)) if kind is list else True


def has_same_hashes(keys: Iterable[Any]) -> bool:
    """Return whether more than ``MAX_SAME_HASH`` keys share a hash; strings do not count, as their hash is random."""
    hashes = [hash(key) for key in keys if type(key) is not str]
    if len(hashes) <= MAX_SAME_HASH:
        return False
    return Counter(hashes).most_common(1)[0][1] > MAX_SAME_HASH


# --- refusals ------------------------------------------------------------------------------------------------------


class _Refusal(Exception):
    """Raised for a part that cannot be sent; each container around it adds its part of the path."""

    def __init__(self, subject: str, rest: str, kind: type[UnserializableError] = UnserializableError) -> None:
        super().__init__(subject)
        self._subject = subject
        self._rest = rest
        self._kind = kind
        self._path: list[tuple[object, str]] = []
        self._is_final = False

    @property
    def is_of_type(self) -> bool:
        """True if the part cannot be sent because of its type, and no annotation has been tried."""
        return self._kind is UnserializableError and self._rest != _TOO_DEEP and not self._is_final

    def make_final(self) -> None:
        """Note that the annotation of the nearest field does not help, so that those around it are not tried."""
        self._is_final = True

    def inside(self, container: object, part: str) -> None:
        """Note that the part is in a container."""
        self._path.append((container, part))

    def error(self) -> UnserializableError:
        """Return the error to raise."""
        path = self._path[::-1]
        if self._rest == _TOO_DEEP and (length := _until_cycle(path)) is not None:
            label = type_label(type(path[length][0]))
            return self._kind(f"{label}{_at(path[:length])} contains itself and cannot be sent; send ids instead")
        return self._kind(f"{self._subject}{_at(path)} {self._rest}")


_TOO_DEEP = f"cannot be sent, as it is nested more than {MAX_DEPTH} levels deep; send a flat list with ids instead"


def _until_cycle(path: list[tuple[object, str]]) -> int | None:
    """Return the length of a path up to the first container that contains itself, or None."""
    around: set[int] = set()
    for length, (container, _) in enumerate(path):
        if id(container) in around:
            return length
        around.add(id(container))
    return None


def _at(path: list[tuple[object, str]]) -> str:
    text = "".join(part for _, part in path).removeprefix(".").strip()
    if len(text) > 120:
        text = f"{text[:60]}…{text[-40:]}"
    return f" at {text}" if text else ""


def _refuse(value: Any, advice: str) -> NoReturn:
    subject = f"the class {type_label(value)}" if isinstance(value, type) else type_label(type(value))
    raise _Refusal(subject, f"cannot be sent; {advice}")


def _advice(value: Any, instead: str) -> str:
    if isinstance(value, type):
        return "send its name, or let the step use the class itself"
    for base in _REFUSED_BASES:
        if isinstance(value, base):
            return f"convert it to a plain {base.__name__}"
    return instead


_UNSET: Any = object()


def _attribute(value: Any, name: str, default: Any) -> Any:
    """Return an attribute of the value itself, without calling a ``__getattr__`` of its class."""
    try:
        return object.__getattribute__(value, name)
    except AttributeError:
        return default


def _key_part(key: Any) -> str:
    return f".{key}" if type(key) is str else f"[{shown(key)}]"


# --- encoding ------------------------------------------------------------------------------------------------------


class _Encoding:
    """One pass over a value."""

    __slots__ = (
        "_depth",
        "_empty",
        "_generics",
        "_instead",
        "_keys",
        "_other",
        "_packages",
        "_pattern_cost",
        "_secrets",
        "_shapes",
    )

    def __init__(
        self,
        other: Encoder | None,
        secrets: Callable[[], bool],
        packages: Collection[str] | None,
        instead: str,
    ) -> None:
        self._other = other
        self._secrets = secrets
        self._packages = packages
        self._instead = instead
        self._shapes: dict[type, Shape] = {}
        self._generics: set[bytes] = set()
        self._depth = 0
        self._keys = 0
        self._empty = 0
        self._pattern_cost = 0

    def value(self, value: Any) -> JSON:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return value if value.isascii() else self._text(value)
        if kind is int:
            return value if -MAX_INT < value < MAX_INT else {TAG: "int", "value": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {TAG: "float", "value": json.dumps(value)}  # NaN, Infinity
        if kind is dict:
            return self._dict(value)
        if kind is list:
            return _grouped(self._items(value, value))
        shape = self._shapes.get(kind)
        if shape is not None:
            return self._data(value, kind, shape)
        leaf = LEAVES.get(kind)
        if leaf is not None:
            if leaf.tag == "pattern":
                self._check_pattern(value)
            try:
                return leaf.dump(value)
            except UnserializableError as err:
                raise _Refusal(type_label(kind), str(err)) from None
            except ValueError as err:
                raise _Refusal(type_label(kind), f"cannot be sent: {err}") from None
        return self._rarer(value, kind)

    def _rarer(self, value: Any, kind: type) -> JSON:
        if kind in _SEQUENCES:
            return self._sequence(value, kind)
        if kind in _MAPPINGS:
            if vars(value):
                _refuse(value, "it has attributes beside its items; use a dataclass")
            return {TAG: _MAPPINGS[kind], "value": self._pairs(value)}
        if kind is deque:
            return {TAG: "deque", "value": self._items(value, value), "maxlen": value.maxlen}
        if kind is defaultdict:
            return self._defaultdict(value)
        if kind in _SECRETS:
            return self._secret(value, kind)
        if is_data(kind):
            try:
                shape = shape_of(kind)
                self._check_name(shape.name)
                self._shapes[kind] = shape
            except UnserializableError as err:
                label, text = type_label(kind), str(err)
                is_named = text.startswith(f"{label} ")
                raise _Refusal(label, text[len(label) + 1 :] if is_named else f"cannot be sent: {text}") from None
            return self._data(value, kind, shape)
        if self._other is not None and (encoded := self._other(value)) is not None:
            return encoded
        if kind.__module__.startswith(_SANDBOX) and value.__class__ in LEAVES:  # a proxy, for example of a path
            return LEAVES[value.__class__].dump(value)
        if isinstance(value, tuple(_SECRETS)):
            _refuse(value, "use pydantic.SecretStr or SecretBytes itself, which can be sent if payloads are encrypted")
        _refuse(value, _advice(value, self._instead))

    def _check_pattern(self, value: Any) -> None:
        self._pattern_cost += pattern_cost(value.pattern, value.flags)
        if self._pattern_cost > MAX_PATTERN_COST:
            raise _Refusal(
                type_label(type(value)),
                f"cannot be sent: the patterns of a value may have at most {MAX_PATTERN_COST:,} characters, and few "
                "case-insensitive ranges beyond ASCII; send the pattern's text, and compile it where it is used",
            )

    def _text(self, value: str) -> str:
        try:
            return unicode(value)
        except UnserializableError as err:
            raise _Refusal("str", str(err)) from None

    def _deeper(self, value: Any) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Refusal(type_label(type(value)), _TOO_DEEP)

    def _items(self, items: Any, container: Any) -> list[JSON]:
        self._deeper(container)
        encoded: list[JSON] = []
        try:
            for item in items:
                encoded.append(self.value(item))  # noqa: PERF401 (an error needs the count)
        except _Refusal as refusal:
            refusal.inside(container, f"[{len(encoded)}]")
            raise
        self._depth -= 1
        return encoded

    def _sequence(self, value: Any, kind: type) -> JSON:
        if kind is tuple:
            return {TAG: _SEQUENCES[kind], "value": self._items(value, value)}
        self._check_hashes(value)
        self._keys += 1
        items = self._items(value, value)
        self._keys -= 1
        items.sort(key=dumps)  # hashes of strings differ between processes, and so does the order of a set
        return {TAG: _SEQUENCES[kind], "value": items}

    def _check_hashes(self, keys: Any) -> None:
        if has_same_hashes(keys):
            raise _Refusal(
                type_label(type(keys)),
                f"has more than {MAX_SAME_HASH} keys with the same hash, which would be slow to read; send a list",
            )

    def _dict(self, value: dict[Any, Any]) -> JSON:
        for key in value:
            if type(key) is not str or not key.isascii():
                break
        else:
            if TAG not in value:
                return self._named(value, value)
        if TAG not in value and all(type(key) is str for key in value):
            for key in value:
                self._key(value, key)
            return self._named(value, value)
        return {TAG: "dict", "value": self._pairs(value)}

    def _key(self, container: Any, key: Any) -> JSON:
        self._keys += 1
        try:
            encoded = self.value(key)
        except _Refusal as refusal:
            refusal.inside(container, f" key {shown(key)}")
            raise
        self._keys -= 1
        return encoded

    def _named(self, values: dict[str, Any], container: Any) -> dict[str, JSON]:
        self._deeper(container)
        encoded: dict[str, JSON] = {}
        name = ""
        try:
            for name, item in values.items():
                kind = type(item)
                if item is None or kind is bool or (kind is str and item.isascii()):
                    encoded[name] = item
                else:
                    encoded[name] = self.value(item)
        except _Refusal as refusal:
            refusal.inside(container, f".{name}")
            raise
        self._depth -= 1
        return encoded

    def _fields(self, values: dict[str, Any], container: Any, kind: type) -> dict[str, JSON]:
        """Return the fields of an instance; fields of unknown types are written by their annotations."""
        depth = self._depth
        try:
            return self._named(values, container)
        except _Refusal as refusal:
            if not refusal.is_of_type:
                raise
            self._depth = depth
            return self._field_by_field(values, container, kind)

    def _field_by_field(self, values: dict[str, Any], container: Any, kind: type) -> dict[str, JSON]:
        self._deeper(container)
        depth = self._depth
        encoded: dict[str, JSON] = {}
        for name, item in values.items():
            try:
                encoded[name] = self.value(item)
            except _Refusal as refusal:
                is_annotated = refusal.is_of_type and not self._is_foreign(kind)
                dumped = dump_annotated(item, annotation_of(kind, name)) if is_annotated else None
                if dumped is None:
                    refusal.make_final()
                    refusal.inside(container, f".{name}")
                    raise
                encoded[name] = {TAG: "annotated", "value": dumped[0]}
                self._depth = depth
        self._depth -= 1
        return encoded

    def _pairs(self, value: Any) -> list[JSON]:
        self._check_hashes(value)
        self._deeper(value)
        encoded: list[JSON] = []
        for key, item in value.items():
            encoded_key = self._key(value, key)
            try:
                encoded.append([encoded_key, self.value(item)])
            except _Refusal as refusal:
                refusal.inside(value, _key_part(key))
                raise
        self._depth -= 1
        return encoded

    def _defaultdict(self, value: defaultdict[Any, Any]) -> JSON:
        factory = value.default_factory
        name = None if factory is None else getattr(factory, "__name__", "")
        if name is not None and FACTORIES.get(name) is not factory:
            _refuse(value, "give it a built-in type as its default_factory, or convert it to a plain dict")
        return {TAG: "defaultdict", "value": self._pairs(value), "factory": name}

    def _secret(self, value: Any, kind: type) -> JSON:
        if not self._secrets():
            raise _Refusal(
                type_label(kind),
                "cannot be sent, as Temporal would store the secret in clear text; encrypt payloads "
                "(docs/security.md), or send a name by which the step looks up the secret",
                UnencryptedSecretError,
            )
        content = value.get_secret_value()
        try:
            return {TAG: "secret", "of": _SECRETS[kind], "value": self.value(content)}
        except _Refusal as refusal:
            refusal.inside(value, ".get_secret_value()")
            raise

    # --- data classes ----------------------------------------------------------------------------------------------

    def _check_name(self, name: JSON) -> None:
        """Check that the reader will accept the class of a name in a value.

        Raises:
            UnserializableError: It will not.
        """
        if self._packages is None:
            return
        if type(name) is str:
            find_data_class(name, self._packages)
        elif (key := dumps(name)) not in self._generics:
            find_data_class(name, self._packages)
            self._generics.add(key)
            if len(self._generics) > MAX_GENERICS:
                raise UnserializableError(
                    f"a value has instances of at most {MAX_GENERICS} generic classes; derive a class from each"
                )

    def _is_foreign(self, kind: type) -> bool:
        return self._packages is not None and is_foreign(kind, self._packages)

    def _data(self, value: Any, kind: type, shape: Shape) -> JSON:
        if self._keys and self._is_foreign(kind) and compares_by_code(kind):
            _refuse(
                value,
                "as a key or in a set, it is compared by code of its class, which is not part of the app; use a "
                f"class of the app, or allow its package: Client(..., step_packages=[{package_of(kind.__module__)!r}])",
            )
        if shape.tag == "model":
            return self._model(value, kind, shape)
        if shape.tag == "enum":
            return self._enum(value, shape)
        if shape.tag == "namedtuple":
            if _attribute(value, "__dict__", None):
                _refuse(value, "it has attributes beside its fields; use a dataclass")
            fields = dict(zip(kind._fields, value, strict=True))  # type: ignore[attr-defined]
            return self._object(shape, self._fields(fields, value, kind))
        if shape.tag == "dataclass":
            return self._dataclass(value, kind, shape)
        return self._model(value, kind, shape)

    def _count_empty(self, kind: type, fields: Any) -> None:
        if not fields:
            self._empty += 1
            if self._empty > MAX_EMPTY:
                raise _Refusal(
                    type_label(kind), f"cannot be sent more than {MAX_EMPTY:,} times without any field; send a number"
                )

    def _object(self, shape: Shape, fields: dict[str, JSON]) -> dict[str, JSON]:
        return {TAG: shape.tag, "type": shape.name, "shape": shape.digest, "value": fields}

    def _enum(self, value: enum.Enum, shape: Shape) -> JSON:
        content = value.value
        if isinstance(value, enum.Flag) and type(content) is int and not -MAX_FLAG < content < MAX_FLAG:
            _refuse(value, "it has a flag beyond the 128th; send its value")
        if type(content) is not str or not content.isascii():
            try:
                content = self.value(content)
            except _Refusal:  # for example a function: the name is sufficient to find the member
                if isinstance(value, enum.Flag):
                    raise
                return {TAG: "enum", "type": shape.name, "name": value.name}
        if isinstance(value, enum.Flag):
            return {TAG: "enum", "type": shape.name, "value": content}
        return {TAG: "enum", "type": shape.name, "name": value.name, "value": content}

    def _state(self, value: Any, shape: Shape) -> dict[str, Any]:
        state: dict[str, Any] = _attribute(value, "__dict__", {})
        if shape.computed and not shape.computed.isdisjoint(state):
            state = {name: item for name, item in state.items() if name not in shape.computed}
        if shape.slots:
            state = dict(state)
            for slot in shape.slots:
                if (item := _attribute(value, slot, _UNSET)) is not _UNSET:
                    state[slot] = item
        return state

    def _dataclass(self, value: Any, kind: type, shape: Shape) -> JSON:
        state = self._state(value, shape)
        self._count_empty(kind, state)
        alias = state.get("__orig_class__")
        if alias is None:
            return self._object(shape, self._fields(state, value, kind))
        state = {name: item for name, item in state.items() if name != "__orig_class__"}
        encoded = self._object(shape, self._fields(state, value, kind))
        try:
            encoded["type"] = name_of(alias)  # Page[int](...): typing stores the parameters in the instance
            self._check_name(encoded["type"])
        except UnserializableError as err:
            raise _Refusal(type_label(kind), f"cannot be sent: {err}") from None
        return encoded

    def _model(self, value: Any, kind: type, shape: Shape) -> JSON:
        state = self._state(value, shape) if shape.computed or shape.slots else value.__dict__
        if shape.tag == "root":  # a RootModel keeps private attributes beside its root
            state = {name: item for name, item in state.items() if not name.startswith("__pydantic_")}
        self._count_empty(kind, state)
        encoded: dict[str, JSON] = {
            TAG: shape.tag,
            "type": shape.name,
            "shape": shape.digest,
            "value": self._fields(state, value, kind),
        }
        set_fields: set[str] = value.__pydantic_fields_set__
        extra, private = value.__pydantic_extra__, value.__pydantic_private__
        if set_fields != state.keys():
            if set_fields <= state.keys():
                encoded["unset"] = [name for name in state if name not in set_fields]
            else:
                encoded["set"] = sorted(set_fields)
        if extra or (extra is None) == shape.has_extra:
            encoded["extra"] = None if extra is None else self._extra(value, extra)
        if private is not None:
            encoded["private"] = self._named(private, value)
        return encoded

    def _extra(self, value: Any, extra: dict[str, Any]) -> JSON:
        self._deeper(value)
        encoded: list[JSON] = []
        name = ""
        try:
            for name, item in extra.items():
                encoded.append([self.value(name), self.value(item)])
        except _Refusal as refusal:
            refusal.inside(value, f".{name}")
            raise
        self._depth -= 1
        return encoded


def _grouped(items: list[JSON]) -> JSON:
    """Return a list of instances of one class with the class named only once."""
    if len(items) < 2:
        return items
    first = items[0]
    if type(first) is not dict or first.get(TAG) not in _GROUPED or not first.keys() <= _HEAD:
        return items
    size, head, unset = len(first), (first[TAG], first["type"], first["shape"]), first.get("unset")
    fields: list[JSON] = []
    for item in items:
        if (
            type(item) is not dict
            or len(item) != size
            or item.get("unset") != unset
            or (item.get(TAG), item.get("type"), item.get("shape")) != head
        ):
            return items
        fields.append(item["value"])
    return {TAG: "list", "of": {key: value for key, value in first.items() if key != "value"}, "value": fields}


_GROUPED = ("model", "dataclass")
_HEAD = frozenset({TAG, "type", "shape", "value", "unset"})
