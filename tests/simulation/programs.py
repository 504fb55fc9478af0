"""Random handlers: small trees of statements, made from a seed.

A program is data, which ``app`` interprets in a body by the public API. A seed names a program as long as this module
stays as it is; what once failed is kept as data (``seeds.json``).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Form = Literal["lambda", "function", "async", "partial", "local"]


@dataclass(frozen=True, slots=True)
class Node:
    """One statement."""


@dataclass(frozen=True, slots=True)
class Step(Node):
    """``step.run``.

    Attributes:
        id: Its id, which other steps may have, too.
        form: How its function is written.
        seconds: How long each attempt takes.
        fails: How many attempts fail; from 4 on it fails for good.
        takes: What its function is given beside: something that the body draws, or the ids of the run.
        is_named_by_chance: Whether its id has a random number in it.
        timeout: How long an attempt may take.
    """

    id: str
    form: Form
    seconds: tuple[float, ...]
    fails: int = 0
    takes: Literal["random", "uuid", "now", "ids", "parts"] | None = None
    is_named_by_chance: bool = False
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Sleep(Node):
    """``step.sleep``."""

    id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Pause(Node):
    """``asyncio.sleep``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Draw(Node):
    """``ctx.random``, ``ctx.uuid4()``, ``ctx.now()``, ``ctx.attempt``, or what Temporal's SDK has of these."""

    what: Literal["random", "uuid", "now", "temporal", "attempt"]


@dataclass(frozen=True, slots=True)
class Throw(Node):
    """An exception of the body's own, which the next ``Try`` catches."""


@dataclass(frozen=True, slots=True)
class Seq(Node):
    """One statement after the other."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Loop(Node):
    """A statement several times, with the same ids."""

    times: int
    body: Node


@dataclass(frozen=True, slots=True)
class Try(Node):
    """Catches what a statement raises, and executes another."""

    body: Node
    handler: Node


@dataclass(frozen=True, slots=True)
class Finally(Node):
    """Executes a statement after another, however that ends."""

    body: Node
    cleanup: Node


@dataclass(frozen=True, slots=True)
class Gather(Node):
    """``asyncio.gather``."""

    branches: tuple[Node, ...]
    return_exceptions: bool = False


@dataclass(frozen=True, slots=True)
class Group(Node):
    """``asyncio.TaskGroup``."""

    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Race(Node):
    """``asyncio.wait``; those that are not done are then cancelled, awaited or left to themselves."""

    branches: tuple[Node, ...]
    return_when: Literal["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"]
    then: Literal["cancel", "await", "leave"]
    after: Node | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class AsCompleted(Node):
    """``asyncio.as_completed`` over tasks; a step after each."""

    branches: tuple[Node, ...]
    after: Node | None = None


@dataclass(frozen=True, slots=True)
class Limit(Node):
    """``asyncio.timeout`` or ``asyncio.wait_for``; another statement if it is too late."""

    seconds: float
    body: Node
    how: Literal["timeout", "wait_for"]
    late: Node | None = None


@dataclass(frozen=True, slots=True)
class Shielded(Node):
    """``asyncio.wait_for`` of ``asyncio.shield``; what is too late is awaited after another statement."""

    seconds: float
    body: Node
    late: Node


@dataclass(frozen=True, slots=True)
class Channel(Node):
    """Producers put into an ``asyncio.Queue`` what they have done; a consumer executes a statement for each."""

    producers: tuple[Node, ...]
    each: Node


@dataclass(frozen=True, slots=True)
class Locked(Node):
    """Branches of which as many as ``slots`` go on at once: ``asyncio.Lock`` or ``asyncio.Semaphore``."""

    slots: int
    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Handoff(Node):
    """One branch sets an ``asyncio.Event`` that another waits for."""

    first: Node
    before: Node
    second: Node


@dataclass(frozen=True, slots=True)
class Spawn(Node):
    """A task beside another statement; then it is awaited, or cancelled."""

    body: Node
    meanwhile: Node
    then: Literal["await", "cancel"]


@dataclass(frozen=True, slots=True)
class Poll(Node):
    """Looks again and again, by ``wait_for`` of ``shield``, whether a task is done; a statement between."""

    every: float
    body: Node
    between: Node


@dataclass(frozen=True, slots=True)
class Generate(Node):
    """An async generator that is left before its end, and cleans up."""

    times: int
    each: Node
    cleanup: Node


@dataclass(frozen=True, slots=True)
class Barred(Node):
    """Branches that wait for one another by ``asyncio.Condition``, each before its second statement."""

    firsts: tuple[Node, ...]
    second: Node


@dataclass(frozen=True, slots=True)
class Ears(Node):
    """Branches that call ``next`` of one listener at the same time, each some times, with a statement after each.

    The first waits ``own`` seconds for each event, and each further one longer: of two that end at one moment, either
    may be first.
    """

    id: str
    name: str
    branches: tuple[Node, ...]
    times: int
    timeout: float
    own: float


@dataclass(frozen=True, slots=True)
class Barrier(Node):
    """Branches that wait for one another at an ``asyncio.Barrier``, each before a second statement."""

    firsts: tuple[Node, ...]
    second: Node


@dataclass(frozen=True, slots=True)
class Reschedule(Node):
    """``asyncio.timeout``, with another deadline after its first statement; another statement if it is too late."""

    seconds: float
    first: Node
    again: float | None
    second: Node
    late: Node | None = None


@dataclass(frozen=True, slots=True)
class Pool(Node):
    """Workers that take jobs of an ``asyncio.Queue`` for ever; it is joined, and the workers are cancelled."""

    jobs: tuple[Node, ...]
    workers: int


@dataclass(frozen=True, slots=True)
class Pending(Node):
    """``asyncio.wait`` again and again for what is pending still; a statement after each, and one more branch."""

    branches: tuple[Node, ...]
    after: Node
    more: Node | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class FirstOf(Node):
    """``asyncio.as_completed`` of which the first is taken; the others are cancelled, and awaited or not."""

    branches: tuple[Node, ...]
    is_awaited: bool
    after: Node | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Held(Node):
    """A context manager with a statement as it is entered and one as it is left."""

    enter: Node
    body: Node
    leave: Node


@dataclass(frozen=True, slots=True)
class Vars(Node):
    """Branches that set a context variable, and read it after a statement."""

    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Stubborn(Node):
    """A task that is cancelled and then goes on."""

    body: Node
    meanwhile: Node
    then: Node


@dataclass(frozen=True, slots=True)
class Growing(Node):
    """A ``TaskGroup`` whose first task makes further ones after a statement."""

    first: Node
    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Ahead(Node):
    """Steps that are called in one order, and awaited in another."""

    steps: tuple[Node, ...]
    order: Literal["gathered", "tasks"]


@dataclass(frozen=True, slots=True)
class Shared(Node):
    """A task that several branches await, each in its own time."""

    body: Node
    seconds: tuple[float, ...]
    how: Literal["shield", "wait", "plain"]


@dataclass(frozen=True, slots=True)
class CallLater(Node):
    """``loop.call_later``, whose callback makes a task; or it is cancelled before."""

    seconds: float
    body: Node
    meanwhile: Node
    is_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Send(Node):
    """``step.send_event``."""

    id: str
    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class WaitEvent(Node):
    """``step.ext.wait_for_event``."""

    id: str
    name: str
    timeout: float


@dataclass(frozen=True, slots=True)
class Listen(Node):
    """``step.ext.listen``, some ``next``, and a statement after each."""

    id: str
    name: str
    times: int
    timeout: float
    each: Node | None = None


@dataclass(frozen=True, slots=True)
class WaitSignal(Node):
    """``step.wait_for_signal``."""

    id: str
    name: str
    timeout: float


@dataclass(frozen=True, slots=True)
class SendSignal(Node):
    """``step.send_signal``."""

    id: str
    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Invoke(Node):
    """``step.invoke_workflow``."""

    id: str
    seconds: float
    fails: bool = False
    timeout: float | None = None
    by_reference: bool = False


@dataclass(frozen=True, slots=True)
class Arrival:
    """Something that comes from outside: an event, a signal, or the run's cancellation."""

    kind: Literal["event", "signal", "cancel"]
    at: float
    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """A program and what happens around it."""

    body: Node
    arrivals: tuple[Arrival, ...] = ()
    is_crowded: bool = False
    """Whether much happens in one moment, so that milliseconds decide what comes first."""


KINDS: dict[str, Any] = {kind.__name__: kind for kind in (*Node.__subclasses__(), Arrival, Scenario)}


# --- as JSON -------------------------------------------------------------------------------------------------------


def to_data(value: Any) -> Any:
    """A program as JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {"is": type(value).__name__, **{f.name: to_data(getattr(value, f.name)) for f in fields}}
    return [to_data(item) for item in value] if isinstance(value, tuple) else value


def from_data(data: Any) -> Any:
    """The inverse of :func:`to_data`."""
    if isinstance(data, dict):
        return KINDS[data["is"]](**{name: from_data(value) for name, value in data.items() if name != "is"})
    return tuple(from_data(item) for item in data) if isinstance(data, list) else data


def written(node: Any, indent: str = "") -> str:
    """A program for a person."""
    if not dataclasses.is_dataclass(node):
        return repr(node)
    own, parts = [], []
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if isinstance(value, Node):
            parts.append((field.name, value))
        elif isinstance(value, tuple) and value and all(isinstance(item, Node | Arrival) for item in value):
            parts.extend((f"{field.name}[{number}]", item) for number, item in enumerate(value))
        elif value not in (None, ()):
            own.append(f"{field.name}={value!r}")
    head = f"{type(node).__name__}({', '.join(own)})"
    return "\n".join([head, *(f"{indent}  {name}: {written(part, indent + '  ')}" for name, part in parts)])


def ids(node: Any) -> set[str]:
    """The step ids in a statement."""
    if isinstance(node, tuple):
        return set().union(*map(ids, node))
    if not isinstance(node, Node):
        return set()
    own = {node.id} if hasattr(node, "id") else set()
    return own.union(*(ids(getattr(node, field.name)) for field in dataclasses.fields(node)))


def share_ids(branches: tuple[Node, ...]) -> bool:
    """Whether two branches have steps with one id."""
    each = [ids(branch) for branch in branches]
    return sum(map(len, each)) > len(set().union(*each))


# --- smaller programs ----------------------------------------------------------------------------------------------


def smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Scenarios that lack something of another, from the boldest on."""
    for position in range(len(scenario.arrivals)):
        arrivals = scenario.arrivals[:position] + scenario.arrivals[position + 1 :]
        yield dataclasses.replace(scenario, arrivals=arrivals)
    for body in _smaller(scenario.body):
        yield dataclasses.replace(scenario, body=body)


def _smaller(node: Any) -> Iterator[Any]:
    if not isinstance(node, Node):
        return
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        parts = value if isinstance(value, tuple) else (value,)
        yield from (part for part in parts if isinstance(part, Node))
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if isinstance(value, Node):
            if field.default is None:
                yield dataclasses.replace(node, **{field.name: None})
            for less in _smaller(value):
                yield dataclasses.replace(node, **{field.name: less})
        elif isinstance(value, tuple) and value and isinstance(value[0], Node):
            for position, item in enumerate(value):
                if len(value) > 1:
                    yield dataclasses.replace(node, **{field.name: value[:position] + value[position + 1 :]})
                for less in _smaller(item):
                    yield dataclasses.replace(node, **{field.name: (*value[:position], less, *value[position + 1 :])})
        elif field.name in ("times", "fails") and isinstance(value, int) and value > (field.name == "times"):
            yield dataclasses.replace(node, **{field.name: value - 1})
        elif field.name == "form" and value != "function":
            yield dataclasses.replace(node, form="function")  # type: ignore[call-arg]


# --- at random -----------------------------------------------------------------------------------------------------


def scenario_of(seed: int) -> Scenario:
    """The scenario with a seed."""
    return _Maker(random.Random(seed)).scenario()


class _Maker:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._left = chance.choice((4, 6, 8, 12, 16, 22))
        self._ids = [f"s{number}" for number in range(chance.choice((1, 2, 4, 12)))]
        self._names = ["paid", "shipped.eu"]
        self._exotic = chance.random() < 0.5
        self._crowded = chance.random() < 0.25
        self._made: list[str] = []

    def scenario(self) -> Scenario:
        items = [self.node(0)]
        while self._left > 0 and len(items) < 5:
            items.append(self.node(0))
        arrivals = []
        if self._exotic:
            for number in range(self._chance.choice((0, 2, 4, 7))):
                kind: Any = self._chance.choice(("event", "event", "signal"))
                name = self._chance.choice(self._names) if kind == "event" else self._chance.choice(("go", "stop"))
                arrivals.append(Arrival(kind, self.seconds(long=True), name, number))
        if self._chance.random() < 0.06:
            arrivals.append(Arrival("cancel", self.seconds(long=True), "", 0))
        return Scenario(Seq(tuple(items)), tuple(arrivals), self._crowded)

    def seconds(self, *, long: bool = False) -> float:
        """A duration; the digits after the point keep sums of them apart."""
        if self._crowded:
            return self._chance.choice((2.0, 4.0, 6.0, 20.0, 40.0))
        most = self._chance.choice((20, 90, 400, 1500) if long else (9, 40, 200, 200, 700))
        return round(self._chance.uniform(1.5, most), 3)

    def id(self) -> str:
        return self._chance.choice(self._ids)

    def node(self, depth: int) -> Node:
        self._left -= 1
        if depth >= 4 or self._left <= 0 or self._chance.random() < 0.25 + 0.1 * depth:
            return self.leaf()
        kinds: list[Callable[[int], Node]] = [
            self.seq, self.seq, self.loop, self.trying, self.finally_, self.gather, self.gather, self.gather,
            self.group, self.race, self.race, self.as_completed, self.limit, self.limit, self.shielded, self.channel,
            self.locked, self.handoff, self.spawn, self.poll, self.generate, self.barred,
            self.barrier, self.reschedule, self.pool, self.pending, self.first_of, self.held, self.vars, self.stubborn,
            self.growing, self.ahead, self.shared, self.call_later,
        ]  # fmt: skip
        if self._exotic:
            kinds += [self.ears, self.ears]
        return self._chance.choice(kinds)(depth + 1)

    def leaf(self) -> Node:
        kinds: list[Callable[[], Node]] = [self.step] * 9 + [self.sleep, self.sleep, self.pause, self.draw]
        if self._chance.random() < 0.08:
            kinds = [self.throw]
        elif self._exotic and self._chance.random() < 0.45:
            kinds = [
                self.send,
                self.wait_event,
                self.listen,
                self.wait_signal,
                self.send_signal,
                self.invoke,
                self.invoke,
            ]
        return self._chance.choice(kinds)()

    def branches(self, depth: int) -> tuple[Node, ...]:
        return tuple(self.branch(depth) for _ in range(self._chance.choice((2, 2, 3))))

    def branch(self, depth: int) -> Node:
        if self._chance.random() < 0.5:
            self._left -= 2
            return Seq((self.leaf(), self.leaf()))
        return self.node(depth)

    def step(self) -> Node:
        form: Any = self._chance.choice(("lambda", "lambda", "function", "async", "partial"))
        if self._chance.random() < 0.05:
            form = "local"
        fails = self._chance.choice((0,) * 9 + (1, 2, 9))
        seconds = tuple(self.seconds() for _ in range(min(fails, 3) + 1))
        takes: Any = self._chance.choice((None,) * 9 + ("random", "uuid", "now", "ids", "parts"))
        timeout = self.seconds() if self._chance.random() < 0.06 else None
        return Step(self.id(), form, seconds, fails, takes, self._chance.random() < 0.05, timeout)

    def sleep(self) -> Node:
        return Sleep(self.id() if self._chance.random() < 0.3 else f"z{self._chance.randrange(3)}", self.seconds())

    def pause(self) -> Node:
        return Pause(self.seconds())

    def draw(self) -> Node:
        return Draw(self._chance.choice(("random", "uuid", "now")))

    def throw(self) -> Node:
        return Throw()

    def seq(self, depth: int) -> Node:
        return Seq(tuple(self.node(depth) for _ in range(self._chance.choice((2, 3)))))

    def loop(self, depth: int) -> Node:
        return Loop(self._chance.choice((2, 3)), self.node(depth))

    def trying(self, depth: int) -> Node:
        return Try(self.node(depth), self.node(depth))

    def finally_(self, depth: int) -> Node:
        return Finally(self.node(depth), self.leaf())

    def gather(self, depth: int) -> Node:
        return Gather(self.branches(depth), self._chance.random() < 0.5)

    def group(self, depth: int) -> Node:
        return Group(self.branches(depth))

    def race(self, depth: int) -> Node:
        when: Any = self._chance.choice(("FIRST_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"))
        then: Any = self._chance.choice(("cancel", "await", "leave"))
        timeout = self.seconds() if self._chance.random() < 0.25 else None
        return Race(self.branches(depth), when, then, self.leaf() if self._chance.random() < 0.5 else None, timeout)

    def as_completed(self, depth: int) -> Node:
        return AsCompleted(self.branches(depth), self.leaf() if self._chance.random() < 0.5 else None)

    def limit(self, depth: int) -> Node:
        how: Any = self._chance.choice(("timeout", "wait_for"))
        return Limit(self.seconds(), self.branch(depth), how, self.leaf() if self._chance.random() < 0.7 else None)

    def shielded(self, depth: int) -> Node:
        return Shielded(self.seconds(), self.branch(depth), self.leaf())

    def channel(self, depth: int) -> Node:
        return Channel(self.branches(depth), self.leaf())

    def locked(self, depth: int) -> Node:
        return Locked(self._chance.choice((1, 1, 2)), self.branches(depth))

    def handoff(self, depth: int) -> Node:
        return Handoff(self.branch(depth), self.leaf(), self.branch(depth))

    def spawn(self, depth: int) -> Node:
        then: Any = self._chance.choice(("await", "await", "cancel"))
        return Spawn(self.branch(depth), self.branch(depth), then)

    def poll(self, depth: int) -> Node:
        return Poll(self.seconds(), self.branch(depth), self.leaf())

    def generate(self, depth: int) -> Node:
        return Generate(self._chance.choice((2, 3)), self.branch(depth), self.leaf())

    def barred(self, depth: int) -> Node:
        return Barred(self.branches(depth), self.branch(depth))

    def ears(self, depth: int) -> Node:
        times = self._chance.choice((1, 1, 2, 3))
        name = self._chance.choice(self._names)
        return Ears(self.id(), name, self.branches(depth), times, 10_000.0, self.seconds(long=True))

    def barrier(self, depth: int) -> Node:
        return Barrier(self.branches(depth), self.branch(depth))

    def reschedule(self, depth: int) -> Node:
        again = None if self._chance.random() < 0.2 else self.seconds()
        late = self.leaf() if self._chance.random() < 0.7 else None
        return Reschedule(self.seconds(), self.branch(depth), again, self.branch(depth), late)

    def pool(self, depth: int) -> Node:
        return Pool(self.branches(depth) + self.branches(depth), self._chance.choice((1, 2, 3)))

    def pending(self, depth: int) -> Node:
        more = self.branch(depth) if self._chance.random() < 0.5 else None
        timeout = self.seconds() if self._chance.random() < 0.4 else None
        return Pending(self.branches(depth), self.leaf(), more, timeout)

    def first_of(self, depth: int) -> Node:
        after = self.leaf() if self._chance.random() < 0.7 else None
        timeout = self.seconds() if self._chance.random() < 0.4 else None
        return FirstOf(self.branches(depth), self._chance.random() < 0.5, after, timeout)

    def held(self, depth: int) -> Node:
        return Held(self.leaf(), self.node(depth), self.leaf())

    def vars(self, depth: int) -> Node:
        return Vars(self.branches(depth))

    def stubborn(self, depth: int) -> Node:
        return Stubborn(self.branch(depth), self.leaf(), self.branch(depth))

    def growing(self, depth: int) -> Node:
        return Growing(self.leaf(), self.branches(depth))

    def ahead(self, depth: int) -> Node:
        order: Any = self._chance.choice(("gathered", "tasks"))
        return Ahead(tuple(self.step() for _ in range(self._chance.choice((2, 3)))), order)

    def shared(self, depth: int) -> Node:
        how: Any = self._chance.choice(("shield", "wait", "plain"))
        return Shared(self.branch(depth), (self.seconds(), self.seconds()), how)

    def call_later(self, depth: int) -> Node:
        return CallLater(self.seconds(), self.branch(depth), self.branch(depth), self._chance.random() < 0.3)

    def send(self) -> Node:
        return Send(self.id(), self._chance.choice(self._names), self.seconds())

    def wait_event(self) -> Node:
        name = self._chance.choice((*self._names, "shipped.*"))
        return WaitEvent(self.id(), name, self.seconds(long=True))

    def listen(self) -> Node:
        each = self.leaf() if self._chance.random() < 0.4 else None
        times = self._chance.choice((1, 2, 3))
        return Listen(self.id(), self._chance.choice(self._names), times, self.seconds(long=True), each)

    def wait_signal(self) -> Node:
        return WaitSignal(self.id(), self._chance.choice(("go", "stop")), self.seconds(long=True))

    def send_signal(self) -> Node:
        return SendSignal(self.id(), self._chance.choice(("go", "stop")), self.seconds())

    def invoke(self) -> Node:
        timeout = self.seconds(long=True) if self._chance.random() < 0.3 else None
        fails, by_reference = self._chance.random() < 0.2, self._chance.random() < 0.2
        return Invoke(self.id(), self.seconds(long=True), fails, timeout, by_reference)
