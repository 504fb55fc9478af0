"""What a step was called with: so that a result never goes to another call than the one that made it.

A step's key says which call of the body it is: the id, its branch, its number there. Where the code was edited, a key
can come to mean another call, with other arguments. So each outcome keeps a short description of its call, and the
description of the call that it is about to be given to has to fit it.

A description has the kind of step, what it does (the function, the events, the workflow, the address), and a digest of
the values that it was given or has captured. Edits that leave a call what it was do not change it: another body of the
same function, a function with a new name, a class with a new name or with a new field that has its default value.
What it names is kept by name, as only the code of today says whether a name is new: where a class, a function or a
module of the description still exists, a call that has another one in its place is another call.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, MethodType, ModuleType
from typing import Any, Protocol

import pydantic
from temporalio import workflow
from temporalio.common import RawValue

from ..context import Context
from ..converter import dumps
from ..errors import UnserializableError
from ..leaves import LEAVES, MAX_INT
from ..types import JSON
from .references import is_same_name, named_function
from .renaming import Names, Rename, renames

_DIGEST_BYTES = 6

CALL = "steporal.call"
"""Metadata of a result: the description of the call that made it."""

UNKNOWN = "?"
"""The target, the values or the branch of a call, where a history does not tell them."""


MAX_NAMED = 100
"""How many names a description keeps at most; each of them may be looked up in a workflow task."""

OR = " or "
"""Between the kinds of step that a call may have been, where a history does not tell which."""

_OF_RERUN = (
    " This run is a rerun from a later step: if its input differs from that of the run before, or the step is given "
    "what the body computes of the run's ids, rerun from this step, or from an earlier one."
)


class Exists(Protocol):
    """Returns whether the code of today has a class, a function or a module; see :func:`.references.is_there`."""

    def __call__(self, named: str, *, exactly: bool = False) -> bool: ...


class AnotherCallError(workflow.NondeterminismError):
    """A finished step comes back as another call than the one whose result the run has."""


@dataclass(frozen=True, slots=True)
class Call:
    """A description of a call.

    Attributes:
        kind: The method of ``step``.
        target: What it does, in words: the function, the workflow, the names of the events.
        values: A digest of what it was given; empty where nothing else makes the call, :data:`UNKNOWN` if nobody knows.
        code: A fingerprint of the function's code, for functions that have no name of their own.
        branch: The branch of the body that made the call; not part of the comparison.
        details: A digest of what an edit may change of a call that has begun, such as the duration of a sleep; not part
            of the comparison, but tells calls of two branches apart.
        named: The classes, functions and modules among the values.
        before: The same call in the runs of which this one is a rerun, with their ids in place of this run's.
    """

    kind: str
    target: str = ""
    values: str = ""
    code: str = ""
    branch: str = field(default="", compare=False)
    details: str = field(default="", compare=False)
    named: tuple[str, ...] = ()
    before: tuple[Call, ...] = field(default=(), compare=False)

    @classmethod
    def of(
        cls,
        kind: str,
        target: str,
        *values: Any,
        code: str = "",
        named: tuple[str, ...] = (),
        reruns: Sequence[Names] = (),
    ) -> Call:
        """Describe a call.

        Args:
            kind: The method of ``step``.
            target: What it does, in words.
            *values: What it was given.
            code: A fingerprint of the function's code.
            named: The classes, functions and modules among the values.
            reruns: The ids of the runs of which this one is a rerun.
        """

        def called(rename: Rename) -> Call:
            values_digest = digest(*values, rename=rename) if values else ""
            return cls(kind, rename(target), values_digest, code, named=named[:MAX_NAMED])

        before = tuple(called(rename) for names in reruns for rename in renames(names))
        return dataclasses.replace(called(str), before=before)

    def json(self) -> JSON:
        """The description as histories have it."""
        parts: list[JSON] = [self.kind, self.target, self.values, self.code, self.branch, self.details]
        parts.append(list(self.named))
        while parts and not parts[-1]:
            parts.pop()
        return parts

    @classmethod
    def read(cls, data: Any) -> Call | None:
        """The inverse of :meth:`json`; None if ``data`` is not a description."""
        if not isinstance(data, list) or not 1 <= len(data) <= 7:
            return None
        named = data[6] if len(data) == 7 else []
        if not isinstance(named, list) or len(named) > MAX_NAMED:
            return None
        if not all(isinstance(part, str) for part in (*data[:6], *named)):
            return None
        return dataclasses.replace(cls(*data[:6]), named=tuple(named))

    @classmethod
    def told_by(cls, raw: RawValue) -> Call | None:
        """The call that made a result; see :func:`told`."""
        text = raw.payload.metadata.get(CALL)
        return None if text is None else cls.read(json.loads(text))

    def described(self) -> str:
        """The call in a message."""
        target = f"method {self.target[1:]}" if self.target.startswith(".") else self.target
        return f"{self.kind} of {target}" if target not in ("", UNKNOWN) else self.kind


def told(call: JSON) -> dict[str, bytes]:
    """The metadata of a result, which says what call it was made by.

    Temporal checks that a replay schedules the same activities, not that it gives them the same arguments. A body
    that was edited meanwhile would be handed a result of arguments that it no longer has.

    Args:
        call: The call's description in the argument of its activity; None if there is none.
    """
    return {} if call is None else {CALL: dumps(call)}


def check_call(key: str, recorded: Call, called: Call, exists: Exists) -> None:
    """Check that a result may be handed to a call.

    Args:
        key: The step's key.
        recorded: The call that made the result.
        called: The call that would get it.
        exists: Returns whether this version of the code still has what a call names.

    Raises:
        AnotherCallError: It is another call.
    """
    if difference := _difference(recorded, called, exists):
        raise AnotherCallError(
            f"step {key!r} comes back as another call: its result was made by {recorded.described()}, and the body now "
            f"calls {called.described()} {difference}. The result is not handed over. Give the changed call a step id "
            "of its own, so that it runs, or change the code back. The run waits: it goes on when a worker has the "
            f"corrected code.{_OF_RERUN if called.before else ''}"
        )


def is_other(recorded: Call, called: Call, exists: Exists) -> bool:
    """Return whether a result was made by another call."""
    return bool(_difference(recorded, called, exists))


def _difference(recorded: Call, called: Call, exists: Exists) -> str:
    """Return what tells two calls apart, and empty text if nothing does, in this run or one that it is a rerun of."""
    difference = _difference_from(recorded, called, exists)
    return difference if all(_difference_from(recorded, before, exists) for before in called.before) else ""


def _difference_from(recorded: Call, called: Call, exists: Exists) -> str:
    if called.kind not in recorded.kind.split(OR):
        return "instead"
    is_same, function = recorded.target in (called.target, UNKNOWN), named_function(recorded.target, recorded.code)
    if not is_same and (recorded.kind != "run" or recorded.values != called.values or exists(function)):
        return "instead"
    if recorded.code not in ("", called.code) and exists(function, exactly=is_same):
        return "at another place of the code"
    if recorded.values == UNKNOWN:
        return ""
    if recorded.values != called.values:
        return "with other arguments or captured values"
    return next(_other_names(recorded.named, called.named, exists), "")


def _other_names(before: tuple[str, ...], now: tuple[str, ...], exists: Exists) -> Iterator[str]:
    """Yield what has taken the place of something that a call named, and that has not just another name now."""
    if len(before) == len(now):
        for old, new in zip(before, now, strict=True):
            if old != new and exists(old, exactly=is_same_name(old, new)):
                yield f"with {_shown(new)} in place of {_shown(old)}"
        return
    gone = [name for name in before if name not in now]
    yield from (f"without {_shown(name)}" for name in gone if exists(name))
    if not gone:
        yield from (f"with {_shown(name)} as well" for name in now if name not in before)


def _shown(named: str) -> str:
    return repr(named.partition(" #")[0])


# --- digests -------------------------------------------------------------------------------------------------------


def digest(*values: Any, rename: Rename = str) -> str:
    """Return a short digest of values, the same in each process and version of Python.

    Names of classes and functions do not count, nor do fields that have their default value, so that a class may be
    moved and may get a field while runs are under way; :attr:`Call.named` has the names.

    Args:
        *values: The values.
        rename: Returns what to read instead of a text of theirs.
    """
    hashed = hashlib.sha256()
    _add(values, hashed.update, 0, rename)
    return base64.urlsafe_b64encode(hashed.digest()[:_DIGEST_BYTES]).decode()


_Put = Callable[[bytes], object]

_DEEP = 200
_EMPTY = (list, dict, set, tuple, frozenset)
_PLAIN = (bool, int, float, complex, str, bytes, tuple, *LEAVES)


def _add(value: Any, put: _Put, depth: int, rename: Rename) -> None:
    if depth > _DEEP:
        return
    kind = type(value)
    if kind is str:
        value = rename(value)
        put(b"s%d:" % len(value))
        put(value.encode("utf-8", "surrogatepass"))
    elif kind is int:
        put(f"i{value if -MAX_INT < value < MAX_INT else hex(value)};".encode())
    elif kind in (bytes, bytearray):
        renamed = rename(bytes(value).decode(errors="surrogateescape")).encode(errors="surrogateescape")
        put(b"b" + repr(renamed).encode() + b";")
    elif value is None or kind in (bool, float, complex):
        put(f"{kind.__name__[0]}{value!r};".encode())
    elif isinstance(value, Mapping):
        _add_unordered([(key, item) for key, item in value.items()], put, depth, rename, b"{")
    elif isinstance(value, list | tuple | deque):
        put(b"[")
        for item in value:
            _add(item, put, depth + 1, rename)
        put(b"]")
    elif isinstance(value, set | frozenset):
        _add_unordered(value, put, depth, rename, b"<")
    elif isinstance(value, enum.Enum):
        is_plain = value.value is None or isinstance(value.value, _PLAIN)
        _add(value.value if is_plain else value.name, put, depth + 1, rename)
    elif isinstance(value, pydantic.BaseModel):
        _add_fields(_fields_of_model(value), put, depth, rename)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _add_fields(_fields_of_dataclass(value), put, depth, rename)
    elif isinstance(value, functools.partial):
        _add((value.func, value.args, value.keywords), put, depth + 1, rename)
    elif isinstance(value, MethodType):
        _add((value.__name__, value.__self__), put, depth + 1, rename)
    elif isinstance(value, FunctionType):
        put(b"f;")
    elif isinstance(value, Context):
        put(b"context;")
        _add(value.input.data, put, depth + 1, rename)
    elif isinstance(value, type | ModuleType):
        put(b"t;")
    elif isinstance(value, pydantic.SecretStr | pydantic.SecretBytes | pydantic.Secret):
        _add(value.get_secret_value(), put, depth + 1, rename)
    elif (leaf := _leaf(value)) is not None:
        _add(leaf, put, depth + 1, rename)
    else:
        put(f"o{rename(_text(value))};".encode("utf-8", "surrogatepass"))


def _leaf(value: Any) -> dict[str, JSON] | None:
    """What is written for a datetime, a Decimal, a path and so on, which says all of it; None for other types."""
    leaf = LEAVES.get(type(value))
    try:
        return None if leaf is None else leaf.dump(value)
    except (UnserializableError, ValueError):
        return None


def _text(value: Any) -> str:
    """Text for a value of another type."""
    try:
        text = str(value)
    except Exception:  # a __str__ or __repr__ of the user's
        return type(value).__name__
    return type(value).__name__ if " at 0x" in text else text


def _add_unordered(items: Any, put: _Put, depth: int, rename: Rename, mark: bytes) -> None:
    digests = []
    for item in items:
        hashed = hashlib.sha256()
        _add(item, hashed.update, depth + 1, rename)
        digests.append(hashed.digest())
    put(mark + b"".join(sorted(digests)))


def _add_fields(fields: dict[str, Any], put: _Put, depth: int, rename: Rename) -> None:
    _add_unordered(fields.items(), put, depth, rename, b"{")


def _fields_of_model(value: pydantic.BaseModel) -> dict[str, Any]:
    fields: dict[str, Any] = {**vars(value), **(value.__pydantic_extra__ or {})}
    for name, info in type(value).model_fields.items():
        if name in fields and _is_default(fields[name], info.default, info.default_factory):
            del fields[name]
    declared = type(value).__private_attributes__
    for name, item in (value.__pydantic_private__ or {}).items():
        private = declared.get(name)
        if private is None or not _is_default(item, private.default, private.default_factory):
            fields[name] = item
    return fields


def _fields_of_dataclass(value: Any) -> dict[str, Any]:
    fields = {each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)}
    for each in dataclasses.fields(value):
        if _is_default(fields[each.name], each.default, each.default_factory):
            del fields[each.name]
    return fields


def _is_default(value: Any, default: Any, factory: Any) -> bool:
    try:
        if factory in _EMPTY:
            return bool(value == factory())
        return type(value) is type(default) and bool(value == default)
    except Exception:  # an __eq__ of the user's
        return False
