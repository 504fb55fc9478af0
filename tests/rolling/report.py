"""What came of it: as a table for people, and as JSON."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from .balancer import NO_ANSWER, Asked

SETTLE_SECONDS = 5.0
"""How long after a start of the server calls may still fail."""

_SHOWN = 20


@dataclass(slots=True)
class Report:
    """The figures of one run.

    Attributes:
        seed: The seed of all chance.
        seconds: How long it took in all.
        loaded: For how many seconds of them orders came and processes were restarted.
        orders: How many orders there were.
        runs: How many runs have ended as they should.
        parked: How often runs have parked.
        events: How many events gateways have taken; runs send more.
        signals: How many signals runs have received.
        healed: How many requests were sent again after an error, and taken then.
        restarts: How often each kind of restart.
        down: From when to when the server was away.
        asked: All requests that a ready gateway was given.
        unready: How often a gateway was taken out by the balancer.
        idle_seconds: How long at most a request had to wait for a ready gateway.
        steps: How many steps have happened.
        attempts: How many attempts of step functions have begun.
        lost: Steps that have not happened. Must be none.
        doubled: Steps that have happened twice, and the server was there. Must be none.
        untold: Steps that have happened twice, as the server was away when they ended and could not be told.
        stuck: Orders that were not done. Must be none.
        wrong: Anything else that must not be: results, runs that nobody asked for or that were started twice.
    """

    orders: int
    runs: int
    events: int
    signals: int
    healed: int
    restarts: Counter[str]
    down: list[tuple[float, float]]
    asked: list[Asked]
    unready: int
    idle_seconds: float
    steps: int
    attempts: int
    lost: list[str]
    doubled: list[str]
    untold: list[str]
    wrong: list[str]
    seed: int = 0
    seconds: float = 0.0
    loaded: float = 0.0
    parked: int = 0
    stuck: list[str] = field(default_factory=list)

    @property
    def refused(self) -> list[Asked]:
        """Requests that were answered with 503 as the server was away."""
        return [asked for asked in self.asked if asked.status == 503 and self._is_down(asked)]

    @property
    def errors(self) -> list[Asked]:
        """Requests that a ready gateway has not answered, or with an error of its own. Must be none."""
        refused = set(map(id, self.refused))
        return [asked for asked in self.asked if asked.is_error and id(asked) not in refused]

    @property
    def is_good(self) -> bool:
        """Whether everything is none that must be."""
        return not (self.errors or self.lost or self.doubled or self.stuck or self.wrong)

    def _is_down(self, asked: Asked) -> bool:
        end = asked.began + asked.seconds
        return any(asked.began <= back + SETTLE_SECONDS and gone <= end for gone, back in self.down)

    def json(self) -> str:
        """All figures, for programs."""
        left_out = ("asked", "down")
        figures = {name: getattr(self, name) for name in self.__slots__ if name not in left_out}
        return json.dumps({**figures, "statuses": self._statuses(), "is_good": self.is_good}, indent=2)

    def _statuses(self) -> dict[str, int]:
        counted = Counter(asked.status for asked in self.asked)
        return {str(status) if status != NO_ANSWER else "no answer": counted[status] for status in sorted(counted)}

    def table(self) -> str:
        """All of it in Markdown, for people."""
        away = [back - gone for gone, back in self.down]
        rows = [
            ("minutes", f"{self.seconds / 60:.1f}, under load and restarts {self.loaded / 60:.1f}"),
            ("restarts", f"{self.restarts.total()}: {_counted(self.restarts)}"),
            ("requests", f"{len(self.asked):,}, {len(self.asked) / self.loaded:.0f} a second"),
            ("statuses", ", ".join(f"{status}: {count:,}" for status, count in self._statuses().items())),
            ("**5xx, or no answer, by a ready gateway**", f"**{len(self.errors)}**"),
            ("the server was away", ", ".join(f"{seconds:.1f} s" for seconds in away) or "never"),
            ("503 meanwhile", f"{len(self.refused)}; {self.healed} requests were sent again, and taken"),
            ("taken out by the balancer", f"{self.unready} times"),
            ("longest wait for a gateway that is ready", f"{self.idle_seconds:.1f} s"),
            ("orders", f"{self.orders:,}, of {self.runs:,} runs, parked {self.parked:,} times"),
            ("sent", f"{self.events:,} events, {self.signals:,} signals"),
            ("steps", f"{self.steps:,}, in {self.attempts:,} attempts"),
            ("**lost: events, signals, steps, runs**", f"**{len(self.lost) + len(self.stuck)}**"),
            ("**doubled: steps**", f"**{len(self.doubled)}**"),
            ("steps that ended while the server was away, and were run again", f"{len(self.untold)}"),
            ("**wrong results, runs started twice**", f"**{len(self.wrong)}**"),
        ]
        lines = ["| what | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows), ""]
        lines += ["| request | | median, ms | 99 %, ms | longest, ms |", "|---|---|---|---|---|"]
        lines += [*self._latencies(), ""]
        for asked in self.errors[:_SHOWN]:
            lines.append(f"- {asked.kind}: {asked.status} of {asked.gateway} after {asked.seconds:.1f} s: {asked.said}")
        for name in ("lost", "doubled", "untold", "stuck", "wrong"):
            found: Sequence[str] = getattr(self, name)
            lines += [f"- {name}: {what}" for what in found[:_SHOWN]]
        return "\n".join(lines)

    def _latencies(self) -> list[str]:
        """Of requests that were taken, but for those in the time of a restart of the server."""
        kinds: dict[str, list[float]] = {}
        for asked in self.asked:
            if not asked.is_error and not self._is_down(asked):
                kinds.setdefault(asked.kind, []).append(asked.seconds * 1000)
        rows = []
        for kind, times in sorted(kinds.items()):
            cuts = statistics.quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99
            rows.append(f"| {kind} | {len(times):,} | {cuts[49]:.0f} | {cuts[98]:.0f} | {max(times):.0f} |")
        return rows


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{what} {count}" for what, count in counter.most_common()) or "none"
