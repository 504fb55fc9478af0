"""What may come between a run and its end."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from steporal.wire.names import CHECKPOINT

from .programs import KINDS as _STATEMENTS
from .recovering import recover
from .service import SECOND, Service

_QUIET = SECOND // 2
"""How long nothing is to happen around an interruption, which takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done to a run, and when, in seconds since its start.

    Attributes:
        parks: Whether it is parked whenever it waits for a second.
        evictions: The numbers of the workflow tasks before which the worker loses the run; 0: before each.
        suggestions: From how many events on Temporal suggests that an execution continues as new, for each execution.
        checkpoints: When it is asked to park, and for how long it is held; at the next quiet moment after that.
        recoveries: When it is recovered from its history; at the next quiet moment after that.
        faults: In which execution which attempt of the body ends at which of its points.
        losses: The numbers of the workflow tasks in which the worker is lost, so that they are performed again.
        asks: When it is asked to park whatever it does, and for how long it is held.
        resets: When it is recovered whatever it does, so that steps in flight begin again.
        rerun: From which of its steps on it is run again, and that run is what is interrupted; -1: it is not.
    """

    parks: bool = False
    evictions: tuple[int, ...] = ()
    suggestions: tuple[int, ...] = ()
    checkpoints: tuple[tuple[float, float], ...] = ()
    recoveries: tuple[float, ...] = ()
    faults: tuple[tuple[int, int, int], ...] = ()
    losses: tuple[int, ...] = ()
    asks: tuple[tuple[float, float], ...] = ()
    resets: tuple[float, ...] = ()
    rerun: int = -1

    @property
    def takes_time(self) -> bool:
        """Whether the run may take another way after an interruption, as steps end later then."""
        return bool(self.asks or self.resets)

    def smaller(self) -> Iterator[Plan]:
        """Plans that lack something of this one."""
        if self.rerun > 0:
            yield dataclasses.replace(self, rerun=self.rerun - 1)
        if self.parks:
            yield dataclasses.replace(self, parks=False)
        for name in ("evictions", "suggestions", "checkpoints", "recoveries", "faults", "losses", "asks", "resets"):
            values = getattr(self, name)
            if len(values) > 1:
                yield self._with(name, ())
            for position in range(len(values)):
                yield self._with(name, values[:position] + values[position + 1 :])

    def _with(self, name: str, values: Any) -> Plan:
        return dataclasses.replace(self, **{name: values})

    def __str__(self) -> str:
        fields = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return ", ".join(f"{name}={value!r}" for name, value in fields if value not in (False, (), -1)) or "nothing"


_STATEMENTS["Plan"] = Plan  # is kept as data beside programs

KINDS = (
    "parks",
    "evictions",
    "suggestions",
    "checkpoints",
    "recoveries",
    "faults",
    "losses",
    "asks",
    "resets",
    "rerun",
)


def plan_of(chance: random.Random, length: float, tasks: int, kinds: tuple[str, ...] = KINDS) -> Plan:
    """A plan at random.

    Args:
        chance: Decides.
        length: How long the run takes without interruptions, in seconds.
        tasks: How many workflow tasks it takes then.
        kinds: What may be in the plan.
    """
    few = chance.choice((1, 1, 2, 3))
    chosen = set(chance.sample(kinds, min(few, len(kinds))))

    def moment() -> float:
        return round(chance.uniform(0, length), 3)

    return Plan(
        parks="parks" in chosen,
        evictions=_evictions(chance, tasks) if "evictions" in chosen else (),
        suggestions=tuple(chance.randrange(4, 60) for _ in range(chance.choice((1, 2, 4, 8))))
        if "suggestions" in chosen
        else (),
        checkpoints=tuple((moment(), chance.choice((0.001, 0.05))) for _ in range(chance.choice((1, 2, 3))))
        if "checkpoints" in chosen
        else (),
        recoveries=tuple(moment() for _ in range(chance.choice((1, 1, 2)))) if "recoveries" in chosen else (),
        faults=tuple((0, attempt, chance.randrange(1, 14)) for attempt in range(1, chance.choice((2, 2, 3))))
        if "faults" in chosen
        else (),
        losses=_numbers(chance, tasks) if "losses" in chosen else (),
        asks=tuple((moment(), chance.choice((0.001, 1.0, 30.0))) for _ in range(chance.choice((1, 2))))
        if "asks" in chosen
        else (),
        resets=tuple(moment() for _ in range(chance.choice((1, 1, 2)))) if "resets" in chosen else (),
        rerun=chance.randrange(12) if "rerun" in chosen else -1,
    )


def _evictions(chance: random.Random, tasks: int) -> tuple[int, ...]:
    if chance.random() < 0.3:
        return (0,)
    return _numbers(chance, tasks)


def _numbers(chance: random.Random, tasks: int) -> tuple[int, ...]:
    return tuple(sorted({chance.randrange(1, tasks + 3) for _ in range(chance.choice((1, 2, 3)))}))


class Interrupted:
    """Does to a run what a plan says."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._checkpoints = sorted(plan.checkpoints)
        self._recoveries = sorted(plan.recoveries)
        self._asks = sorted(plan.asks)
        self._resets = sorted(plan.resets)

    def before_task(self, service: Service) -> None:
        """See :class:`~.service.Interruptions`."""
        if 0 in self._plan.evictions or service.tasks + 1 in self._plan.evictions:
            service.forget(service.execution)

    def suggests(self, service: Service) -> bool:
        """See :class:`~.service.Interruptions`."""
        execution, suggestions = service.execution, self._plan.suggestions
        return execution.number < len(suggestions) and len(execution.history) > suggestions[execution.number]

    def loses(self, service: Service) -> bool:
        """See :class:`~.service.Interruptions`."""
        return service.tasks in self._plan.losses

    def between(self, service: Service) -> None:
        """See :class:`~.service.Interruptions`."""
        if self._asks and self._comes(service, self._asks[0][0]):
            at, hold = self._asks.pop(0)
            service.at(service.began + int(at * SECOND), lambda: service.signal(CHECKPOINT, {"hold": hold}))
        if self._resets and self._comes(service, self._resets[0]):
            service.at(service.began + int(self._resets.pop(0) * SECOND), lambda: recover(service))
        if self._checkpoints and self._is_due(service, self._checkpoints[0][0]):
            _, hold = self._checkpoints.pop(0)
            service.after(_QUIET // 4, lambda: service.signal(CHECKPOINT, {"hold": hold}))
        elif self._recoveries and self._is_due(service, self._recoveries[0]):
            self._recoveries.pop(0)
            service.after(_QUIET // 4, lambda: recover(service))

    def _is_due(self, service: Service, at: float) -> bool:
        next_at = service.next_at()
        if next_at is None or next_at - service.now < _QUIET or service.execution.activities:
            return False
        return self._comes(service, at)

    def _comes(self, service: Service, at: float) -> bool:
        """Whether a moment comes before anything else happens, or has been."""
        next_at, moment = service.next_at(), service.began + int(at * SECOND)
        return moment <= service.now or (next_at is not None and moment < next_at)
