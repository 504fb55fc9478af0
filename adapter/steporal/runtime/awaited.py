"""Descriptions of a run's waits, for Temporal's UI, search attributes and the command ``steporal``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..wire.limits import code, utc
from ..wire.waits import EventWait, InvokeWait, Kind, NextWait, SignalWait, TimedWait, Waiting

_SHOWN = 20

_WHAT: dict[Kind, str] = {
    "sleep": "sleeps",
    "timer": "sleeps",
    "event": "waits for event",
    "next": "waits for event",
    "signal": "waits for signal",
    "invoke": "waits for run",
    "backoff": "pauses after an error",
    "asyncio": "sleeps",
    "start": "begins at the time of its event",
}


@dataclass(frozen=True, slots=True)
class Awaited:
    """One wait.

    Attributes:
        step: The step that waits; empty between two attempts of the body.
        kind: What for.
        names: The names of the events or of the signal, or the id of the run.
        until: When it ends at the latest, in seconds since the epoch.
    """

    step: str
    kind: Kind
    names: tuple[str, ...] = ()
    until: float | None = None

    @classmethod
    def of(cls, key: str, waiting: Waiting, topics: Mapping[str, Sequence[str]]) -> Awaited:
        """A wait as it is known to the run.

        Args:
            key: The step's key.
            waiting: The wait.
            topics: What the run has subscribed to, by key.
        """
        names: tuple[str, ...] = ()
        match waiting:
            case EventWait():
                names = tuple(topics.get(key, ()))
            case NextWait(box=box):
                names = tuple(topics.get(box, ()))
            case SignalWait(wait=wait):
                names = (wait.signal,)
            case InvokeWait(child=child):
                names = (child,)
            case TimedWait():
                pass
        return cls(key, waiting.kind, names, waiting.until)

    @property
    def what(self) -> str:
        """Short description of the wait."""
        return " ".join([_WHAT[self.kind], " or ".join(self.names)]).strip()

    def found_by(self) -> list[str]:
        """Return search values: ``event:order.paid``, ``signal:approval/A-1``, ``run:ship/1``, ``sleep:a``."""
        match self.kind:
            case "event" | "next":
                return [f"event:{name}" for name in self.names]
            case "signal" | "invoke":
                return [f"{'run' if self.kind == 'invoke' else 'signal'}:{name}" for name in self.names]
            case "backoff":
                return ["backoff"]
            case "sleep" | "timer":
                return [f"sleep:{self.step}"]
            case "asyncio" | "start":
                return []

    def markdown(self) -> str:
        """A line for Temporal's UI."""
        who = "the body" if self.kind in ("backoff", "asyncio", "start") else f"step {code(self.step)}"
        names = " or ".join(map(code, self.names))
        until = "" if self.until is None else f", until {utc(self.until)}"
        return f"- {who} {_WHAT[self.kind]} {names}".rstrip() + until


def described(waits: Sequence[Awaited], *, is_parked: bool) -> str:
    """Return a description of a run's waits as Markdown."""
    if not waits:
        return ""
    lines = [wait.markdown() for wait in waits[:_SHOWN]]
    if len(waits) > _SHOWN:
        lines.append(f"- and {len(waits) - _SHOWN:,} more")
    return "\n".join(["Parked. It waits for:" if is_parked else "It waits for:", "", *lines])
