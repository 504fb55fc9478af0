"""The app that payloads attack, and a library that it imports, as modules of their own."""

from __future__ import annotations

import sys
from types import ModuleType

APP, LIBRARY = "hostile_app", "hostile_library"
PACKAGES = {APP}

LIBRARY_SOURCE = '''
"""A library that an app imports. Whatever can run when a value is made is written here, and must not run."""
import dataclasses, enum, typing
import pydantic

def helper(*args): return args

class Meta(type(pydantic.BaseModel)):
    def __getattr__(cls, name): raise AttributeError(name)

class Plain(pydantic.BaseModel):
    name: str = "n"
    number: int = 0

class Busy(pydantic.BaseModel, metaclass=Meta):
    name: str = "n"
    count: int = 0
    made: list = pydantic.Field(default_factory=lambda: [1])
    _hidden: int = pydantic.PrivateAttr(default_factory=lambda: 5)
    def __new__(cls, *args, **kwargs): return super().__new__(cls)
    def __init__(self, **data): super().__init__(**data)
    def model_post_init(self, context): super().model_post_init(context)
    def __setattr__(self, name, value): super().__setattr__(name, value)
    def __getattribute__(self, name): return super().__getattribute__(name)
    def __repr__(self): return "busy"
    def __setstate__(self, state): pass
    def __reduce_ex__(self, version): return helper, ()
    @pydantic.field_validator("name")
    @classmethod
    def _check(cls, value): return value
    @pydantic.model_validator(mode="before")
    @classmethod
    def _before(cls, value): return value
    @property
    def shadow(self): return 1
    @shadow.setter
    def shadow(self, value): helper(value)
    @classmethod
    def load(cls, text): return helper(text)
    def run(self): return helper()

class Forgetful(pydantic.BaseModel):
    name: str = ""
    def __del__(self): helper()

class Comparing(pydantic.BaseModel):
    name: str = ""
    def __hash__(self): return 1
    def __eq__(self, other): return True

T = typing.TypeVar("T")
class Page(pydantic.BaseModel, typing.Generic[T]):
    items: list[T] = []
    def __class_getitem__(cls, item): return super().__class_getitem__(item)
    @classmethod
    def __pydantic_init_subclass__(cls, **options): helper()

class Schemed:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler): return handler(str)

@dataclasses.dataclass
class Data:
    name: str = "n"
    def __post_init__(self): helper()
    def __setattr__(self, name, value): object.__setattr__(self, name, value)
    @property
    def shadow(self): return 1
    @shadow.setter
    def shadow(self, value): helper(value)
    def open(self): return helper(self.name)

@dataclasses.dataclass(frozen=True)
class Frozen:
    name: str = "n"

@dataclasses.dataclass
class Slotted:
    __slots__ = ("name",)
    name: str

class Overridden(Slotted):
    @property
    def name(self): return 1
    @name.setter
    def name(self, value): helper(value)

class Pair(typing.NamedTuple):
    first: int
    second: int
    def total(self): return helper()

class Odd(Pair):
    def __new__(cls, *args): return helper(args)

class Colour(enum.Enum):
    RED = "red"
    @classmethod
    def _missing_(cls, value): return helper(value)

class Size(enum.Enum):
    SMALL = 1

class Flags(enum.IntFlag):
    A = 1
    B = 2

class Worker:
    def run(self): return helper()

def __getattr__(name): return helper
'''

APP_SOURCE = '''
"""The app under attack: nothing odd in it."""
from __future__ import annotations
import dataclasses, enum, functools, json, os, subprocess, typing
import pydantic
import hostile_library as library
from hostile_library import Plain, helper

T = typing.TypeVar("T")

class Item(pydantic.BaseModel):
    sku: str = "s"
    count: int = 1
    def total(self, factor: int = 1) -> int: return self.count * factor
    @classmethod
    def of(cls, sku: str) -> "Item": return cls(sku=sku)
    @staticmethod
    def debit(amount: int) -> int: return amount
    @functools.lru_cache
    def cached(self): return 1
    inherited = library.helper

class Order(pydantic.BaseModel):
    order_id: str = "A"
    items: list[Item] = []
    plain: Plain | None = None
    _secret: int = pydantic.PrivateAttr(5)

class Page(pydantic.BaseModel, typing.Generic[T]):
    items: list[T] = []

@dataclasses.dataclass(frozen=True)
class Point:
    x: int = 0
    y: int = 0
    def moved(self, by: int = 1): return Point(self.x + by, self.y)

@dataclasses.dataclass(slots=True)
class Box(typing.Generic[T]):
    content: T

class Colour(enum.Enum):
    RED = "red"
    BLUE = 2

class Pair(typing.NamedTuple):
    first: int
    second: str = ""

def add(a: int, b: int) -> int: return a + b
async def soon(a: int) -> int: return a

def handler(order, step=None):
    import json as reader
    amount, point = 5, Point(1, 2)
    def nested(by: int = amount, *, and_by: int = 2): return by * amount * and_by
    def recursive(n): return 1 if not n else n * recursive(n - 1)
    return [
        lambda: (amount, order), nested, recursive, lambda: nested(), lambda: reader.dumps(amount), add, soon, Item.of,
        Item.debit, order.items[0].total, point.moved, functools.partial(add, 1, b=2), functools.partial(nested, 3),
    ]

VALUES = [
    Order(items=[Item(), Item(count=2)], plain=Plain()), Page[int](items=[1]), Page[Item](items=[Item()]), Box(1),
    Point(1, 2), {Point(1, 2): 1}, {Point(3, 4)}, Colour.RED, Pair(1, "b"), Plain(), library.Frozen(),
    library.Size.SMALL, library.Flags.A | library.Flags.B, library.Pair(1, 2),
    [Plain(), Plain(number=3)], {library.Frozen(): 1},
]
'''


def _module(name: str, source: str) -> ModuleType:
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = f"{name}.py"
    exec(compile(source, f"{name}.py", "exec"), module.__dict__)
    return module


library = _module(LIBRARY, LIBRARY_SOURCE)
app = _module(APP, APP_SOURCE)
