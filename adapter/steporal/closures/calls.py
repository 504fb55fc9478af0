"""Descriptions of calls of steps, so that a result never goes to another call than the one that made it.

A step's key identifies a call of the body: the id, its branch, its number there. After an edit of the code, a key can
come to identify another call, with other arguments. So each outcome keeps a short description of its call, and is only
given to a call that fits this description.

A description contains the kind of step, what it does (the function, the events, the workflow, the address), and a
digest of the values that were passed or captured. Edits that leave a call what it was do not change the description:
another body of the same function, a new name for a function or a class, or a new field with its default value. What a
call names is kept by name, because only today's code shows whether a name is new: if a class, a function or a module of
the description still exists, a call with another one in its place is another call.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from temporalio import workflow
from temporalio.common import RawValue

from ..types import JSON
from ..values.converter import dumps
from ..wire.names import CALL_METADATA
from .digests import digest_of_text, digests
from .references import is_same_code, is_same_name, named_function
from .renaming import Names, Rename, renames

UNKNOWN = "?"
"""Target, values or branch of a call that a history does not contain."""


MAX_NAMED = 100
"""Limit of names in a description; each of them may be looked up in a workflow task."""

OR = " or "
"""Separator of the possible kinds of a step, if a history does not distinguish them."""

_AFTER_NAMED = ("least", "shapes", "exact")

_OF_RERUN = (
    " This run is a rerun from a later step: if its input differs from that of the original run, or the body passes "
    "the step a value that it computes from the run's ids, rerun from this step, or from an earlier one."
)


class Exists(Protocol):
    """Look-up of a class, a function or a module in today's code; see :func:`.references.is_there`."""

    def __call__(self, named: str, *, exactly: bool = False) -> bool: ...


class AnotherCallError(workflow.NondeterminismError):
    """A finished step returns in a call that differs from the one whose result the run has."""


@dataclass(frozen=True, slots=True)
class Call:
    """Description of a call.

    Attributes:
        kind: The method of ``step``.
        target: The target: the function, the workflow, or the names of the events.
        values: A digest of the values; empty if nothing else identifies the call, :data:`UNKNOWN` if it is not known.
        code: A fingerprint of the function's code, for functions without a name.
        branch: The branch of the body that made the call; ignored in comparisons.
        details: A digest of what an edit may change in a call that has begun, such as the duration of a sleep; ignored
            in comparisons, but it distinguishes calls of two branches.
        named: The classes, functions and modules among the values.
        least: The digest without fields that have their default; empty if there are no such fields.
        shapes: A digest of the fields of the values' classes.
        exact: A digest of the whole call with the names of its variables, if another order of the variables would
            change the digest of the values.
        before: The same call in the runs that this run is a rerun of, with their ids in place of this run's.
    """

    kind: str
    target: str = ""
    values: str = ""
    code: str = ""
    branch: str = field(default="", compare=False)
    details: str = field(default="", compare=False)
    named: tuple[str, ...] = ()
    least: str = ""
    shapes: str = ""
    exact: str = ""
    before: tuple[Call, ...] = field(default=(), compare=False)

    @classmethod
    def of(
        cls,
        kind: str,
        target: str,
        *values: Any,
        code: str = "",
        names: Mapping[int, str] | None = None,
        whole: JSON = None,
        is_json: bool = False,
        reruns: Sequence[Names] = (),
    ) -> Call:
        """Describe a call.

        Args:
            kind: The method of ``step``.
            target: The target of the call.
            *values: The values of the call.
            code: A fingerprint of the function's code.
            names: The names of functions among the values, by ``id``.
            whole: The whole call as JSON, if the order of the values depends on the code.
            is_json: Whether the values are sent as plain JSON.
            reruns: The ids of the runs that this run is a rerun of.
        """
        text = "" if whole is None else json.dumps(whole, sort_keys=True, ensure_ascii=False)

        def called(rename: Rename) -> Call:
            if not values:
                return cls(kind, rename(target), code=code)
            parts = digests(values, rename=rename, names=names, is_json=is_json)
            exact = "" if whole is None else digest_of_text(rename(text).encode("utf-8", "surrogatepass"))
            named = parts.named[:MAX_NAMED]
            least, shapes = parts.least, parts.shapes
            return cls(kind, rename(target), parts.values, code, "", "", named, least, shapes, exact)

        before = tuple(called(rename) for names_ in reruns for rename in renames(names_))
        return dataclasses.replace(called(str), before=before)

    def json(self) -> JSON:
        """Return the description as histories contain it."""
        parts: list[JSON] = [self.kind, self.target, self.values, self.code, self.branch, self.details]
        parts += [list(self.named), self.least, self.shapes, self.exact]
        while parts and not parts[-1]:
            parts.pop()
        return parts

    @classmethod
    def read(cls, data: Any) -> Call | None:
        """Read the output of :meth:`json`; return None if ``data`` is not a description."""
        if not isinstance(data, list) or not 1 <= len(data) <= 10:
            return None
        named = data[6] if len(data) > 6 else []
        texts = [*data[:6], *data[7:]]
        if not isinstance(named, list) or len(named) > MAX_NAMED:
            return None
        if not all(isinstance(part, str) for part in (*texts, *named)):
            return None
        return dataclasses.replace(
            cls(*data[:6]), named=tuple(named), **dict(zip(_AFTER_NAMED, data[7:], strict=False))
        )

    @classmethod
    def of_result(cls, raw: RawValue) -> Call | None:
        """Return the call that made a result; see :func:`call_metadata`."""
        text = raw.payload.metadata.get(CALL_METADATA)
        try:
            return None if text is None else cls.read(json.loads(text))
        except (ValueError, RecursionError):  # not written by a Steporal worker
            return None

    def described(self) -> str:
        """Return the call as text for a message."""
        target = f"method {self.target[1:]}" if self.target.startswith(".") else self.target
        return f"{self.kind} of {target}" if target not in ("", UNKNOWN) else self.kind


def call_metadata(call: JSON) -> dict[str, bytes]:
    """Return the metadata of a result, which describe the call that made it.

    Temporal checks that a replay schedules the same activities, but not that it passes them the same arguments. A body
    that was edited in the meantime would otherwise receive a result of arguments that it no longer passes.

    Args:
        call: The call's description in the argument of its activity, or None.
    """
    return {} if call is None else {CALL_METADATA: dumps(call)}


def check_call(key: str, recorded: Call, called: Call, exists: Exists) -> None:
    """Check that a result may be given to a call.

    Args:
        key: The step's key.
        recorded: The call that made the result.
        called: The call that would receive it.
        exists: Returns whether today's code still contains what a call names.

    Raises:
        AnotherCallError: The call is another one.
    """
    if difference := _difference(recorded, called, exists):
        raise AnotherCallError(
            f"step {key!r} has become another call: its result was made by {recorded.described()}, but the body now "
            f"calls {called.described()} {difference}. The result is not used. Give the changed call a new step id, so "
            "that it runs, or revert the change. The run waits: it continues when a worker has the "
            f"corrected code.{_OF_RERUN if called.before else ''}"
        )


def is_other(recorded: Call, called: Call, exists: Exists) -> bool:
    """Return whether a result was made by another call."""
    return bool(_difference(recorded, called, exists))


def _difference(recorded: Call, called: Call, exists: Exists) -> str:
    """Return how two calls differ, in this run and in those that it is a rerun of; empty text if they do not."""
    difference = _difference_from(recorded, called, exists)
    return difference if all(_difference_from(recorded, before, exists) for before in called.before) else ""


def _difference_from(recorded: Call, called: Call, exists: Exists) -> str:
    if called.kind not in recorded.kind.split(OR):
        return "instead"
    is_same, function = recorded.target in (called.target, UNKNOWN), named_function(recorded.target, recorded.code)
    if not is_same and (recorded.kind != "run" or _has_other_values(recorded, called) or exists(function)):
        return "instead"
    if recorded.code and not is_same_code(recorded.code, called.code) and exists(function, exactly=is_same):
        return "at another place of the code"
    if recorded.values == UNKNOWN or (recorded.exact and recorded.exact == called.exact):
        return ""
    if _has_other_values(recorded, called):
        return "with other arguments or captured values"
    return next(_other_names(recorded.named, called.named, exists), "")


def _has_other_values(recorded: Call, called: Call) -> bool:
    """Return whether two calls have different values; added or removed fields of a class count as their default."""
    if recorded.values == called.values:
        return False
    is_same_class = recorded.shapes == called.shapes
    return is_same_class or (recorded.least or recorded.values) != (called.least or called.values)


def _other_names(before: tuple[str, ...], now: tuple[str, ...], exists: Exists) -> Iterator[str]:
    """Yield the names that have replaced names of the recorded call, unless a thing only has a new name."""
    if len(before) == len(now):
        for old, new in zip(before, now, strict=True):
            if not is_same_code(old, new) and exists(old, exactly=is_same_name(old, new)):
                yield f"with {_shown(new)} in place of {_shown(old)}"
        return
    removed = [old for old in before if not any(is_same_code(old, new) for new in now)]
    yield from (f"without {_shown(name)}" for name in removed if exists(name))
    if not removed:
        added = (new for new in now if not any(is_same_code(old, new) for old in before))
        yield from (f"with {_shown(name)} as well" for name in added)


def _shown(named: str) -> str:
    return repr(named.partition(" #")[0])
