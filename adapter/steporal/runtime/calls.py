"""What a step was called with: so that a result never goes to another call than the one that made it.

A step's key says which call of the body it is: the id, its branch, its number there. Where the code was edited, a key
can come to mean another call, with other arguments. So each outcome keeps a short description of its call, and the
description of the call that it is about to be given to has to fit it.

A description has the kind of step, what it does (the function, the events, the workflow, the address), and a digest of
the values that it was given or has captured. Edits that leave a call what it was do not change it: another body of the
same function, a function with a new name, a class with a new name or with a new field that has its default value.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, MethodType, ModuleType
from typing import Any

import pydantic
from temporalio import workflow
from temporalio.common import RawValue

from ..context import Context
from ..converter import dumps
from ..leaves import MAX_INT
from ..types import JSON
from .renaming import Names, Rename, renames

_DIGEST_BYTES = 6

CALL = "steporal.call"
"""Metadata of a result: the description of the call that made it."""

UNKNOWN = "?"
"""The values or the branch of a call, where a history does not tell them."""


_OF_RERUN = (
    " This run is a rerun from a later step: if its input differs from that of the run before, or the step is given "
    "what the body computes of the run's ids, rerun from this step, or from an earlier one."
)


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
        before: The same call in the runs of which this one is a rerun, with their ids in place of this run's.
    """

    kind: str
    target: str = ""
    values: str = ""
    code: str = ""
    branch: str = field(default="", compare=False)
    details: str = field(default="", compare=False)
    before: tuple[Call, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, kind: str, target: str, *values: Any, code: str = "", reruns: Sequence[Names] = ()) -> Call:
        """Describe a call.

        Args:
            kind: The method of ``step``.
            target: What it does, in words.
            *values: What it was given.
            code: A fingerprint of the function's code.
            reruns: The ids of the runs of which this one is a rerun.
        """

        def called(rename: Rename) -> Call:
            return cls(kind, rename(target), digest(*values, rename=rename) if values else "", code)

        before = tuple(called(rename) for names in reruns for rename in renames(names))
        return dataclasses.replace(called(str), before=before)

    def json(self) -> JSON:
        """The description as histories have it."""
        parts = [self.kind, self.target, self.values, self.code, self.branch, self.details]
        while parts and not parts[-1]:
            parts.pop()
        return list(parts)

    @classmethod
    def read(cls, data: Any) -> Call | None:
        """The inverse of :meth:`json`; None if ``data`` is not a description."""
        if not isinstance(data, list) or not 1 <= len(data) <= 6 or not all(isinstance(part, str) for part in data):
            return None
        return cls(*data)

    @classmethod
    def told_by(cls, raw: RawValue) -> Call | None:
        """The call that made a result; see :func:`told`."""
        text = raw.payload.metadata.get(CALL)
        return None if text is None else cls.read(json.loads(text))

    def described(self) -> str:
        """The call in a message."""
        target = f"method {self.target[1:]}" if self.target.startswith(".") else self.target
        return f"{self.kind} of {target}" if target else self.kind


def told(call: JSON) -> dict[str, bytes]:
    """The metadata of a result, which says what call it was made by.

    Temporal checks that a replay schedules the same activities, not that it gives them the same arguments. A body
    that was edited meanwhile would be handed a result of arguments that it no longer has.

    Args:
        call: The call's description in the argument of its activity; None if there is none.
    """
    return {} if call is None else {CALL: dumps(call)}


def check_call(key: str, recorded: Call, called: Call, exists: Callable[[Call], bool]) -> None:
    """Check that a result may be handed to a call.

    Args:
        key: The step's key.
        recorded: The call that made the result.
        called: The call that would get it.
        exists: Returns whether this version of the code still has the function of a call.

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


def is_other(recorded: Call, called: Call, exists: Callable[[Call], bool]) -> bool:
    """Return whether a result was made by another call."""
    return bool(_difference(recorded, called, exists))


def _difference(recorded: Call, called: Call, exists: Callable[[Call], bool]) -> str:
    """Return what tells two calls apart, and empty text if nothing does, in this run or one that it is a rerun of."""
    difference = _difference_from(recorded, called, exists)
    return difference if all(_difference_from(recorded, before, exists) for before in called.before) else ""


def _difference_from(recorded: Call, called: Call, exists: Callable[[Call], bool]) -> str:
    if recorded.kind != called.kind:
        return "instead"
    if recorded.target != called.target and (recorded.values != called.values or exists(recorded)):
        return "instead"
    if recorded.code != called.code and recorded.code and exists(recorded):
        return "at another place of the code"
    return "with other arguments or captured values" if recorded.values not in (called.values, UNKNOWN) else ""


# --- digests -------------------------------------------------------------------------------------------------------


def digest(*values: Any, rename: Rename = str) -> str:
    """Return a short digest of values, the same in each process and version of Python.

    Names of classes do not count, nor do fields that have their default value, so that a class may be moved and may
    get a field while runs are under way.

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
        _add(value.value, put, depth + 1, rename)
    elif isinstance(value, pydantic.BaseModel):
        _add_fields(_fields_of_model(value), put, depth, rename)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _add_fields(_fields_of_dataclass(value), put, depth, rename)
    elif isinstance(value, functools.partial):
        _add((value.func, value.args, value.keywords), put, depth + 1, rename)
    elif isinstance(value, MethodType):
        _add((value.__name__, value.__self__), put, depth + 1, rename)
    elif isinstance(value, FunctionType):
        put(f"f{value.__name__};".encode())
    elif isinstance(value, Context):
        put(b"context;")
    elif isinstance(value, type | ModuleType):
        put(f"t{value.__name__};".encode())
    elif isinstance(value, pydantic.SecretStr | pydantic.SecretBytes | pydantic.Secret):
        _add(value.get_secret_value(), put, depth + 1, rename)
    else:
        put(f"o{rename(_text(value))};".encode("utf-8", "surrogatepass"))


def _text(value: Any) -> str:
    """Text for a value of another type: datetimes, Decimals, UUIDs and paths have one that says all of them."""
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
