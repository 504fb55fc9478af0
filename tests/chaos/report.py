"""What came of it: as a table for people, and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_SHOWN = 20


@dataclass(slots=True)
class Report:
    """The figures of one chaos.

    Attributes:
        seed: The seed of all chance; the same one draws the same plays and kills, though not at the same moments.
        skew: How many seconds the workers' clocks were wrong.
        seconds: How long it took in all.
        loaded: For how many seconds of them runs were started and processes killed.
        runs: How many runs have ended as they should.
        parked: How often runs have parked.
        plays: How often each play was played.
        kills: How often each kind of kill.
        restarts: How often a worker ended by itself, and was started again.
        steps: How many steps have happened.
        attempts: How many attempts of step functions have begun.
        interrupted: How many of them neither ended nor raised.
        events: How many events senders outside have sent; runs send more.
        signals: How many signals senders outside have sent.
        repeated: How many steps have happened more than once too many, by the kill that explains it.
        lost: Steps that have not happened. Must be none.
        stuck: Runs, or what was waited for, that have not ended. Must be none.
        unexplained: Steps that were repeated without a kill. Must be none.
        wrong: Anything else that must not be: events, signals, results.
    """

    seed: int
    skew: float = 0.0
    seconds: float = 0.0
    loaded: float = 0.0
    runs: int = 0
    parked: int = 0
    plays: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    steps: int = 0
    attempts: int = 0
    interrupted: int = 0
    events: int = 0
    signals: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether everything is none that must be."""
        return not (self.lost or self.stuck or self.unexplained or self.wrong)

    def json(self) -> str:
        """All of it, for programs."""
        figures: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({**figures, "is_good": self.is_good}, indent=2)

    def table(self) -> str:
        """All of it in Markdown, for people."""
        rows = [
            ("seed", self.seed),
            ("minutes", f"{self.seconds / 60:.1f}, under load and kills {self.loaded / 60:.1f}"),
            ("clocks of workers", f"{self.skew:g} s behind and ahead" if self.skew else "right"),
            ("runs", f"{self.runs}, parked {self.parked} times"),
            ("steps", f"{self.steps}, in {self.attempts} attempts, of which {self.interrupted} were interrupted"),
            ("sent from outside", f"{self.events} events, {self.signals} signals"),
            ("kills", f"{self.kills.total()}: {_counted(self.kills)}"),
            ("workers that ended by themselves", self.restarts),
            ("**side effects lost**", f"**{len(self.lost)}**"),
            ("**runs stuck**", f"**{len(self.stuck)}**"),
            ("steps that happened twice", f"{self.repeated.total()}: {_counted(self.repeated)}"),
            ("**of these without a kill**", f"**{len(self.unexplained)}**"),
            ("**wrong results, events, signals**", f"**{len(self.wrong)}**"),
        ]
        lines = ["| what | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows), ""]
        lines += [f"Plays: {_counted(self.plays)}.", ""]
        for name in ("lost", "stuck", "unexplained", "wrong"):
            found = getattr(self, name)
            lines += [f"- {name}: {what}" for what in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"- {name}: {len(found) - _SHOWN} more")
        return "\n".join(lines)


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{what} {count}" for what, count in counter.most_common()) or "none"
