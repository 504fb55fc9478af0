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
"""The target, the values or the branch of a call, where a history does not tell them."""


MAX_NAMED = 100
"""How many names a description keeps at most; each of them may be looked up in a workflow task."""

OR = " or "
"""Between the kinds of step that a call may have been, where a history does not tell which."""

_AFTER_NAMED = ("least", "shapes", "exact")

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
        least: The digest without the fields that have their default; empty if there are none.
        shapes: A digest of the fields that the classes of the values have.
        exact: A digest of all of the call, with the names of its variables, where another order of these would make
            another digest of the values.
        before: The same call in the runs of which this one is a rerun, with their ids in place of this run's.
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
            target: What it does, in words.
            *values: What it was given.
            code: A fingerprint of the function's code.
            names: The names of functions among the values, by ``id``.
            whole: All of the call as JSON, if the order of the values depends on the code.
            is_json: Whether the values are sent as plain JSON.
            reruns: The ids of the runs of which this one is a rerun.
        """
        text = "" if whole is None else json.dumps(whole, sort_keys=True, ensure_ascii=False)

        def called(rename: Rename) -> Call:
            if not values:
                return cls(kind, rename(target), code=code)
            found = digests(values, rename=rename, names=names, is_json=is_json)
            exact = "" if whole is None else digest_of_text(rename(text).encode("utf-8", "surrogatepass"))
            named = found.named[:MAX_NAMED]
            least, shapes = found.least, found.shapes
            return cls(kind, rename(target), found.values, code, "", "", named, least, shapes, exact)

        before = tuple(called(rename) for names_ in reruns for rename in renames(names_))
        return dataclasses.replace(called(str), before=before)

    def json(self) -> JSON:
        """The description as histories have it."""
        parts: list[JSON] = [self.kind, self.target, self.values, self.code, self.branch, self.details]
        parts += [list(self.named), self.least, self.shapes, self.exact]
        while parts and not parts[-1]:
            parts.pop()
        return parts

    @classmethod
    def read(cls, data: Any) -> Call | None:
        """The inverse of :meth:`json`; None if ``data`` is not a description."""
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
    def told_by(cls, raw: RawValue) -> Call | None:
        """The call that made a result; see :func:`told`."""
        text = raw.payload.metadata.get(CALL_METADATA)
        try:
            return None if text is None else cls.read(json.loads(text))
        except (ValueError, RecursionError):  # nothing that a worker of ours writes
            return None

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
    return {} if call is None else {CALL_METADATA: dumps(call)}


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
    """Return whether two calls have other values; those of fields that a class has got or lost count as the default."""
    if recorded.values == called.values:
        return False
    is_same_class = recorded.shapes == called.shapes
    return is_same_class or (recorded.least or recorded.values) != (called.least or called.values)


def _other_names(before: tuple[str, ...], now: tuple[str, ...], exists: Exists) -> Iterator[str]:
    """Yield what has taken the place of something that a call named, and that has not just another name now."""
    if len(before) == len(now):
        for old, new in zip(before, now, strict=True):
            if not is_same_code(old, new) and exists(old, exactly=is_same_name(old, new)):
                yield f"with {_shown(new)} in place of {_shown(old)}"
        return
    gone = [old for old in before if not any(is_same_code(old, new) for new in now)]
    yield from (f"without {_shown(name)}" for name in gone if exists(name))
    if not gone:
        added = (new for new in now if not any(is_same_code(old, new) for old in before))
        yield from (f"with {_shown(name)} as well" for name in added)


def _shown(named: str) -> str:
    return repr(named.partition(" #")[0])
