"""A module as people write them: what it does at its top happens once, and its bodies run ordinary Python."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import random
import tempfile
import threading
import time
import uuid
import zoneinfo
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, field_validator
from temporalio import workflow

import steporal
from apps import ordinary_helpers
from apps.ordinary_errors import OutOfStock
from steporal import Context, Step

client = steporal.Client("ordinary", max_attempts=1)

STARTED = datetime.now(UTC)
SOURCE = Path(__file__).read_text()
SHARD = random.random()
BOOT = uuid.uuid4()
FOLDER = tempfile.gettempdir()
LIMIT = 3
"""A constant that a test replaces."""

CACHE: dict[str, int] = {}
settings: str | None = None
counter = 0

ordinary_helpers.imported.append(__name__)
_thread = threading.Thread(target=ordinary_helpers.imported.append, args=("thread",))
_thread.start()
_thread.join()


class Stamp(datetime):
    def shout(self) -> str:
        return f"!{self.isoformat()}"


class Level(Enum):
    LOW = 1

    def is_low(self) -> bool:
        return self is Level.LOW


@dataclass
class Basket:
    items: list[str] = field(default_factory=list)
    made: float = field(default_factory=time.time)

    def age(self) -> float:
        return time.time() - self.made


class Order(BaseModel):
    id: uuid.UUID = Field(default_factory=uuid.uuid4)
    due: date = date(2026, 1, 1)

    @property
    def is_late(self) -> bool:
        return date.today() > self.due


def kind(value: object) -> str:
    match value:
        case datetime():
            return "datetime"
        case date():
            return "date"
    return "other"


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


def named(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@named
def double(number: int) -> int:
    return number * 2


class Stamping(logging.Handler):
    """A handler of log records that does what a body may not."""

    def emit(self, record: logging.LogRecord) -> None:
        stamped.append(f"{record.getMessage()} at {datetime.now(UTC):%Y} {Path(__file__).exists()}")


stamped: list[str] = []
logger = logging.getLogger("apps.ordinary")
logger.addHandler(Stamping())


@client.workflow(id="logs")
async def logs(ctx: Context[Any], step: Step) -> str:
    logger.warning("packed")
    with workflow.unsafe.sandbox_unrestricted():
        return f"{datetime.now(UTC):%Y}"


@client.workflow(id="top")
async def top(ctx: Context[Any], step: Step) -> Any:
    """What the body sees of the module is what a step sees of it, and what the process has."""
    seen = await step.run("seen", lambda: [str(STARTED), str(BOOT), SHARD, LIMIT])
    return [[str(STARTED), str(BOOT), SHARD, LIMIT], seen, ordinary_helpers.imported]


@client.workflow(id="python")
async def python(ctx: Context[Any], step: Step) -> dict[str, Any]:
    """Ordinary computing, whose results are those that Python has outside a body."""
    moment = datetime(2026, 3, 28, 9, tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))
    basket = Basket(["a"], made=0)
    add = functools.partial(max, 1)
    return {
        "zone": ctx.now().astimezone(zoneinfo.ZoneInfo("Asia/Tokyo")).tzname(),
        "moment": moment.isoformat(),
        "path": os.path.join("a", "b"),
        "parent": str(Path("/srv/shop/app.py").parent),
        "kind": [kind(moment), kind(date(2026, 1, 1)), kind(1)],
        "type": type(Stamp(2026, 1, 1)) is Stamp and type(datetime(2026, 1, 1)) is datetime,
        "subclass": Stamp(2026, 1, 1).shout(),
        "random": random.Random(1).random() == random.Random(1).random(),
        "drawn": len({ctx.random.random(), ctx.random.randint(0, 10**9)}),
        "local time": time.strftime("%Y", time.gmtime(0)),
        "enum": Level(1).is_low(),
        "basket": basket.items,
        "partial": add(2),
        "decorated": double(2),
        "numbers": [number async for number in numbers(3)],
        "helper": ordinary_helpers.total([1, 2]),
        "timestamp": datetime.fromtimestamp(0, UTC).year,
        "local class": type("Local", (), {"limit": LIMIT})().limit,
    }


@client.workflow(id="caught")
async def caught(ctx: Context[Any], step: Step) -> str:
    """The class of an error is one and the same here and where a helper raises it."""
    try:
        ordinary_helpers.reserve(9)
    except OutOfStock as err:
        return str(err)
    return "not raised"


def get_settings() -> str:
    global settings
    if settings is None:
        settings = "loaded"
    return settings


@client.workflow(id="lazy")
async def lazy(ctx: Context[Any], step: Step) -> str:
    """A variable that the first use fills."""
    return get_settings()


@client.workflow(id="counts")
async def counts(ctx: Context[Any], step: Step) -> int:
    """Changes a variable that all runs share."""
    global counter
    counter += 1
    return counter


@client.workflow(id="counts later")
async def counts_later(ctx: Context[Any], step: Step) -> int:
    """Changes it in another workflow task than the one that it begins in."""
    global counter
    await step.sleep("nap", 1)
    counter += 1
    return counter


class Shop:
    def opened(self) -> str:
        return datetime.now(UTC).isoformat()


TABLE: dict[str, Callable[[], Any]] = {"today": lambda: date.today()}

FORBIDDEN: dict[str, tuple[Callable[[], Any], str]] = {
    "a method": (lambda: Shop().opened(), "calls datetime.datetime.now"),
    "a property": (lambda: Order(id=uuid.UUID(int=1)).is_late, "calls datetime.date.today"),
    "a default factory": (lambda: Order().id, "calls uuid.uuid4"),
    "a function in a table": (lambda: TABLE["today"](), "calls datetime.date.today"),
    "a subclass": (lambda: Stamp.now(), "calls datetime.datetime.now"),
    "another module": (lambda: ordinary_helpers.stamped(), "calls time.time"),
    "a path": (lambda: Path(__file__).read_text(), "calls pathlib.Path.read_text"),
    "the environment": (lambda: os.environ.get("HOME"), "reads os.environ"),
    "an import": (ordinary_helpers.import_and_draw, "calls random.random"),
    "a thread": (lambda: threading.Thread(target=print), "calls threading.Thread"),
    "the local time": (lambda: time.localtime(), "calls time.localtime"),
    "an end of the process": (lambda: os._exit(3), "calls os._exit"),
    "a generator": (lambda: random.Random(), "calls random.Random"),
}


@client.workflow(id="forbidden")
async def forbidden(ctx: Context[Any], step: Step) -> str:
    """Does what its input names, and catches whatever that raises."""
    try:
        FORBIDDEN[ctx.input.data][0]()
    except Exception:
        return "hidden"
    return "not caught"


def draw() -> float:
    return random.random()


async def drawing() -> float:
    return draw()


def call_when_done() -> object:
    task = asyncio.ensure_future(asyncio.sleep(0))
    task.add_done_callback(lambda task: None if task.cancelled() else draw())
    return task


LATER: dict[str, Callable[[], object]] = {
    "a callback": lambda: asyncio.get_running_loop().call_soon(draw),
    "a timer": lambda: asyncio.get_running_loop().call_later(0.01, draw),
    "a timer of no time": lambda: asyncio.get_running_loop().call_later(0, draw),
    "the callback of a task": call_when_done,
    "a task": lambda: asyncio.ensure_future(drawing()),
    "a task of a library": lambda: asyncio.ensure_future(asyncio.wait_for(drawing(), 1)),
    "several tasks": lambda: asyncio.gather(drawing(), asyncio.sleep(0)),
}


@client.workflow(id="forbidden-later")
async def forbidden_later(ctx: Context[Any], step: Step) -> str:
    """Has what its input names called by the event loop."""
    kept = LATER[ctx.input.data]()
    await asyncio.sleep(0.1)
    return f"not caught: {kept}"


class Due(BaseModel):
    days: int

    @field_validator("days")
    @classmethod
    def from_today(cls, days: int) -> int:
        return date.today().day + days


@client.workflow(id="forbidden-input", input_schema=Due)
async def forbidden_input(ctx: Context[Due], step: Step) -> int:
    return ctx.input.data.days
