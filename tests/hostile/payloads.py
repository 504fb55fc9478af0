"""Attacks by who can write to the namespace: values and step functions that a payload names.

Nothing is called: an input is read, as a worker reads it before it calls a step. Meanwhile every call of Python and of
C is watched, and every event that Python's audit hooks see. The oracle knows which code reading may run; it is
neither asked of the code under attack nor taken from it.
"""

from __future__ import annotations

import functools
import enum
import gc
import inspect
import json
import random
import sys
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import pydantic

import steporal.activities
import steporal_workers.cli
import steporal_workers.connection  # noqa: F401 (a worker has all of it loaded)
from steporal.decoding import _TAGS, decode
from steporal.encoding import TAG, encode
from steporal.errors import SteporalError
from steporal.known_types import STANDARD_DATA, STANDARD_TYPES
from steporal.leaves import LOADERS
from steporal.packed import unpack_json
from steporal.runtime.carried import read_carried
from steporal.runtime.references import App, Describer, Resolver

from .attacks import Figures, Turns, attack

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

class Derived(library.Busy):
    more: int = 1
    def own(self): return 1

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
    Point(1, 2), {Point(1, 2): 1}, {Point(3, 4)}, Colour.RED, Pair(1, "b"), Plain(), library.Frozen(), library.Size.SMALL,
    library.Flags.A | library.Flags.B, library.Pair(1, 2), [Plain(), Plain(number=3)], {library.Frozen(): 1},
]
'''


def _module(name: str, source: str) -> ModuleType:
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = f"{name}.py"
    exec(compile(source, f"{name}.py", "exec"), module.__dict__)
    return module


library = _module(LIBRARY, LIBRARY_SOURCE)
app = _module(APP, APP_SOURCE)


# --- the oracle: what may run while an input is read ---------------------------------------------------------------

_STANDARD = Path(json.__file__).parents[1]
_SITE = Path(pydantic.__file__).parents[1]
_ADAPTER = Path(steporal.__file__).parent
_MAY_RUN = tuple(
    str(path)
    for path in (
        _ADAPTER,
        _SITE / "pydantic",
        _SITE / "typing_extensions.py",
        _SITE / "typing_inspection",
        _SITE / "annotated_types",
        *(
            _STANDARD / name
            for name in (
                "json re zoneinfo collections importlib ast.py base64.py contextlib.py copy.py copyreg.py dataclasses.py "
                "datetime.py decimal.py dis.py enum.py fractions.py functools.py hashlib.py inspect.py ipaddress.py "
                "linecache.py numbers.py opcode.py pathlib.py pathlib types.py typing.py uuid.py weakref.py abc.py "
                "warnings.py string.py operator.py keyword.py reprlib.py urllib/parse.py"
            ).split()
        ),
    )
)
_GENERATED = (
    "<string>",
    "<frozen abc>",
    "<frozen importlib",
    "<frozen codecs>",
    "<frozen posixpath>",
    "<frozen os>",
    "<frozen _collections_abc>",
)
_PART_OF_THIS = __file__

_FORBIDDEN_IN_C = {"posix", "_posixsubprocess", "_socket", "_pickle", "marshal", "_ctypes", "_sqlite3", "_ssl"}
_FORBIDDEN_BUILTINS = {"open", "input", "breakpoint", "__import__"}
_EVENTS = ("open", "import", "os.", "subprocess.", "socket.", "pickle.", "ctypes.", "marshal.", "shutil.", "tempfile.")
_ZONES = ("zoneinfo", "tzdata")


class Oracle:
    """Watches what runs, and keeps what must not."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self._is_on = False
        sys.addaudithook(self._audit)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.ran = []
        self._is_on = True
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._is_on = False

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Watch on, for what runs when an input is let go of."""
        self._is_on = True
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._is_on = False

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._is_on and event.startswith(_EVENTS):
            what = str(arguments[0]) if arguments else ""
            if not any(zone in what for zone in _ZONES) and not what.startswith("pydantic"):
                self.ran.append(f"event {event} {what}")

    def _profile(self, frame: Any, event: str, argument: Any) -> None:
        if not self._is_on:
            return
        if event == "call":
            code: CodeType = frame.f_code
            if not may_run(code.co_filename):
                self.ran.append(f"{code.co_filename}:{code.co_qualname}")
        elif event == "c_call":
            module = getattr(argument, "__module__", None)
            if module in _FORBIDDEN_IN_C and argument.__name__ not in ("fspath", "stat", "lstat"):
                self.ran.append(f"{module}.{argument.__name__}")
            elif module == "builtins" and argument.__name__ in _FORBIDDEN_BUILTINS:
                if not frame.f_code.co_filename.startswith(str(_STANDARD / "zoneinfo")):
                    self.ran.append(f"builtins.{argument.__name__}")


@functools.lru_cache(maxsize=None)
def may_run(file: str) -> bool:
    """Return whether code of a file may run while an input is read: ours, pydantic's, the app's, some of Python's."""
    if file in (f"{APP}.py", _PART_OF_THIS) or file.startswith(_GENERATED):
        return True
    return file.startswith(_MAY_RUN)


def is_function_of_app(function: Any) -> bool:
    """Return whether what a reference names is written in the app; other code is not called, however it is wrapped."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, MethodType):
        owner = function.__self__ if isinstance(function.__self__, type) else type(function.__self__)
        if owner.__module__ != APP:
            return False
        function = function.__func__
    plain = inspect.unwrap(function)
    if not isinstance(plain, FunctionType) or plain.__code__.co_filename != f"{APP}.py":
        return False
    return not (plain.__name__.startswith("__") and plain.__name__.endswith("__"))


def parts_not_allowed(value: Any, most: int = 20_000) -> list[str]:
    """Return what in a decoded value is of no class that a payload may name."""
    found: list[str] = []
    seen: set[int] = set()
    rest = [value]
    while rest and most:
        most -= 1
        item = rest.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if type(item) in (FunctionType, MethodType, functools.partial):
            if not is_function_of_app(item):
                found.append(f"function {item!r}")
            continue
        if isinstance(item, ModuleType):
            if item.__name__ not in (APP, "json"):
                found.append(f"module {item.__name__}")
            continue
        kind = item if isinstance(item, type) else type(item)
        name = f"{kind.__module__}:{kind.__qualname__}"
        is_listed = name in STANDARD_DATA | STANDARD_TYPES or kind.__module__ in _LEAVES_OF
        if kind.__module__ == LIBRARY and isinstance(item, type):
            found.append(f"class {name}")
        elif kind.__module__ not in (APP, LIBRARY) and not is_listed:
            found.append(name)
        if isinstance(item, dict):
            rest += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            rest += item
        elif kind.__module__ in (APP, LIBRARY) and not isinstance(item, type | enum.Enum):
            try:
                rest += object.__getattribute__(item, "__dict__").values()
            except AttributeError:
                continue
    return found


_LEAVES_OF = {
    "builtins", "datetime", "decimal", "fractions", "uuid", "zoneinfo", "pathlib", "pathlib._local", "re", "ipaddress",
    "collections", "pydantic.networks", "pydantic.types", "pydantic_core._pydantic_core", "typing", "types",
}  # fmt: skip


# --- inputs --------------------------------------------------------------------------------------------------------


class NoCaptives:
    """A run that has no context."""

    def encode(self, value: Any) -> Any:
        return None

    def is_step(self, value: Any) -> bool:
        return False


def _no_captive(data: Any) -> Any:
    raise SteporalError(f"no tag {str(data)[:50]}")


def references() -> list[Any]:
    """The calls of the app's own step functions, as a run sends them."""
    describer = Describer("w", app.handler, PACKAGES, NoCaptives())
    functions = app.handler(app.VALUES[0])
    return [json.loads(json.dumps(describer.call("s", each, ()))) for each in functions]


def values() -> list[Any]:
    """Values of every kind, as they are sent."""
    return [json.loads(json.dumps(encode(each, packages=PACKAGES))) for each in app.VALUES]


_TAG_NAMES = [*LOADERS, *_TAGS, "model", "function", "module", "type", "context", "annotated", "typed", "returned", "?"]
_KEYS = (
    "value type shape of extra private set unset name class flags bytes factory maxlen zone fold method self partial "
    "arguments keywords workflow root path code captured defaults kwdefaults variable enclosing alias generic literal"
).split()
_DUNDERS = (
    "__class__ __init__ __new__ __reduce_ex__ __setstate__ __setattr__ __getattribute__ __dict__ __globals__ __code__ "
    "__subclasses__ __call__ __del__ __module__ __builtins__ __wrapped__ __func__ __self__ __doc__ mro register "
    "parse_raw parse_file model_validate model_validate_json model_construct model_rebuild model_post_init from_orm"
).split()
_ODD: list[Any] = [
    None, True, -1, 0, 2**63, 10**30, 1.5, 1e308, "", "x", "\0", "é" * 300, "../../etc/passwd", "/etc/passwd", "(" * 500,
    "(?i)[\\0-\\U0010ffff]", "1e999999999", "9" * 5000, "UTC", "America/New_York", "os.path/x", [], {}, [[]], [{}],
    {"$": []}, {"offset": 1e18}, {"pydantic": 5}, {"pydantic": 10**9}, ["a", "b"],
]  # fmt: skip


class Names:
    """What a worker has loaded: the names of all classes, and of all that modules have."""

    def __init__(self) -> None:
        self.classes: list[str] = []
        self.data: list[str] = []
        self.members: list[str] = []
        for name, module in sorted(sys.modules.items()):
            if not isinstance(module, ModuleType):
                continue
            for attribute, value in list(vars(module).items()):
                self.members.append(f"{name}:{attribute}")
                if type in type(value).__mro__:
                    self.classes.append(f"{name}:{attribute}")
                    kept = vars(value)
                    if "__dataclass_fields__" in kept or pydantic.BaseModel in value.__mro__ or "_fields" in kept:
                        self.data.append(f"{value.__module__}:{value.__qualname__}")
        self.of_app = [name for name in self.members if name.startswith(APP)]
        self.of_library = [name for name in self.data + self.members if name.startswith(LIBRARY)]

    def attributes(self, name: str) -> list[str]:
        module, _, qualname = name.partition(":")
        found: Any = sys.modules.get(module)
        for part in qualname.split("."):
            found = vars(found).get(part) if hasattr(found, "__dict__") else None
        return sorted(dir(found)) if type in type(found).__mro__ else []


class Forge:
    """Makes inputs: from scratch, and from those that a run sends."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.names = Names()
        self.corpus = [*references(), *values()]

    def input(self) -> Any:
        make = self.chance.choice([self.reference, self.method, self.tagged, self.mutated, self.mutated])
        return make()

    def mutated(self) -> Any:
        data = json.loads(json.dumps(self.chance.choice(self.corpus)))
        for _ in range(self.chance.choice((1, 1, 2, 3, 6))):
            places = list(_places(data))
            if not places:
                return self.tagged()
            container, key = self.chance.choice(places)
            how = self.chance.randrange(6)
            if how == 0 and isinstance(container, dict):
                del container[key]
            elif how == 1 and isinstance(container, dict):
                container[self.chance.choice(_KEYS + _DUNDERS)] = container[key]
            elif how == 2 and isinstance(container[key], str):
                container[key] = self.name()
            else:
                container[key] = json.loads(json.dumps(self.anything()))
        return data

    def anything(self) -> Any:
        return self.chance.choice([self.reference, self.method, self.tagged, self.named_type, self.odd, self.valid])()

    def odd(self) -> Any:
        return self.chance.choice(_ODD)

    def valid(self) -> Any:
        found = self.chance.choice(self.corpus)
        return found.get("function", found) if isinstance(found, dict) else found

    def name(self) -> str:
        names, chance = self.names, self.chance
        name = chance.choice(chance.choice([names.classes, names.data, names.members, names.of_app, names.of_library]))
        if chance.random() < 0.3:
            name += f".{chance.choice([*_DUNDERS, *(self.names.attributes(name) or ['x'])])}"
        if chance.random() < 0.1:
            name = f"{APP}:{name.replace(':', '.')}"
        return name

    def named_type(self) -> Any:
        kind, chance = self.chance.randrange(5), self.chance
        if kind == 0:
            return {"generic": chance.choice([f"{APP}:Page", f"{APP}:Box", self.name()]), "of": [self.name()]}
        if kind == 1:
            return {
                "generic": chance.choice(["|", "typing:Union", "typing:List", self.name()]),
                "of": [self.name()] * 2,
            }
        if kind == 2:
            return {"literal": [self.odd(), {"enum": self.name(), "name": chance.choice(["RED", "x"])}]}
        return self.name()

    def reference(self) -> Any:
        chance = self.chance
        return {TAG: "function", **chance.choice([
            {"name": self.name()},
            {"name": self.name(), "alias": self.name()},
            {"root": self.name(), "path": chance.choice(["<lambda>", "run", ""]), "code": "0"},
            {"workflow": "w", "path": chance.choice(["<lambda>", "nested"]), "code": "0", "captured": {"x": self.odd()}},
            {"workflow": "w", "variable": chance.choice(["library", "os", "x"]), "code": ""},
            {"partial": {TAG: "function", "name": self.name()}, "arguments": [self.odd()], "keywords": {"x": self.odd()}},
            {"enclosing": self.odd()},
        ])}  # fmt: skip

    def method(self) -> Any:
        chance, name = self.chance, self.name()
        tag = chance.choice(["model", "dataclass", "root", "namedtuple", "enum", "type"])
        owner = {TAG: "type", "name": name} if tag == "type" else self.instance(tag, name)
        attributes = self.names.attributes(name) + _DUNDERS
        reference: dict[str, Any] = {TAG: "function", "method": chance.choice(attributes), "self": owner}
        if chance.random() < 0.3:
            reference["of"] = {TAG: "type", "name": self.name()}
        return reference

    def instance(self, tag: str, name: Any) -> Any:
        chance = self.chance
        fields = {key: self.odd() for key in chance.sample(["name", "count", "x", "root", "shadow", "__class__"], 3)}
        made = {TAG: tag, "type": name, "shape": self.shape(name), "value": fields}
        if tag == "enum":
            made = {TAG: tag, "type": name, "name": chance.choice(["RED", "A", "x"]), "value": self.odd()}
        if chance.random() < 0.3:
            made[chance.choice(["extra", "private", "set", "unset"])] = self.odd()
        return made

    def shape(self, name: Any) -> str:
        """The digest of a class, so that the instance is taken for unchanged; sometimes another."""
        from steporal.shapes import shape_of

        module, _, qualname = str(name).partition(":")
        if self.chance.random() < 0.3 or module not in (APP, LIBRARY):
            return "00000000"
        try:
            return shape_of(
                functools.reduce(lambda it, part: vars(it)[part], qualname.split("."), sys.modules[module])
            ).digest  # type: ignore[arg-type]
        except Exception:
            return "00000000"

    def tagged(self) -> Any:
        chance = self.chance
        tag = chance.choice(_TAG_NAMES)
        if chance.random() < 0.4:
            return self.instance(tag, self.named_type())
        data = {TAG: tag, "value": chance.choice([self.odd(), [self.odd()], {"name": self.odd()}, [[self.odd(), 1]]])}
        for key in chance.sample(_KEYS, 3):
            data.setdefault(key, self.odd())
        return data


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    items: Any = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, item in list(items):
        yield data, key
        yield from _places(item)


# --- attacks -------------------------------------------------------------------------------------------------------

SECONDS_PER_INPUT = 3.0
"""How long reading one input may take; one that is watched takes several times as long as one that is not."""

ORACLE = Oracle()


def read(data: Any) -> Any:
    """Read an input as a worker does: as the function of a step where it is one, else as an argument."""
    resolver = Resolver(App({"w": app.handler}, PACKAGES), _no_captive)
    is_function = isinstance(data, dict) and data.get(TAG) == "function"
    call = data if isinstance(data, dict) and "function" in data else None
    if call is None:
        call = {"function": data} if is_function else {"function": _ADD, "arguments": [data]}
    return resolver.call(call)


_ADD = {TAG: "function", "name": f"{APP}:add"}


@attack
async def references_and_values(turns: Turns) -> Figures:
    """Crafted references and tagged values: whatever is named, no code runs but ours and the app's."""
    figures, forge = Figures(), Forge(turns.random)
    warm_up()
    for _ in turns:
        data = forge.input()
        figures.tried += 1
        began = time.perf_counter()
        outcome = look_at(data, figures)
        figures.seen[outcome] += 1
        figures.measure("seconds to read an input", took := time.perf_counter() - began)
        if took > SECONDS_PER_INPUT:
            figures.breaks("an input is read within seconds", json.dumps(data))
    return figures


def look_at(data: Any, figures: Figures) -> str:
    """Read an input, and note what broke a promise; return how it ended."""
    found: Any = None
    try:
        with ORACLE():
            try:
                found = read(data)
            except SteporalError as err:
                if len(str(err)) > 5_000:
                    figures.breaks("an error message is short", f"{len(str(err))} of {json.dumps(data)}")
                return "refused"
            except BaseException as err:
                figures.breaks("what cannot be read is an error of ours", f"{err!r} of {json.dumps(data)}")
                return "broken"
        function, arguments = found
        if not is_function_of_app(function):
            figures.breaks("only functions of the app are named", f"{function!r} by {json.dumps(data)}")
        for part in parts_not_allowed([arguments, _captured(function)]):
            figures.breaks("only listed classes are made", f"{part} by {json.dumps(data)}")
        return "read"
    finally:
        with ORACLE.finishing():
            found = function = arguments = None
        if ORACLE.ran:
            figures.breaks("no other code runs", f"{ORACLE.ran[:3]} by {json.dumps(data)}")


def _captured(function: Any) -> list[Any]:
    while isinstance(function, functools.partial):
        return [function.args, function.keywords, _captured(function.func)]
    if isinstance(function, MethodType):
        return [function.__self__]
    return []


def warm_up() -> None:
    """Have everything loaded that is loaded at its first use."""
    warnings.simplefilter("ignore")
    for data in [*references(), *values()]:
        read(data)
    for name in ("UTC", "America/New_York"):
        decode({TAG: "zone", "value": name})
    gc.collect()


@attack
async def every_attribute_of_every_class(turns: Turns) -> Figures:
    """Methods of all classes that a worker has loaded, and all names of all modules as functions, in turn."""
    figures, names = Figures(), Names()
    warm_up()
    everything = list(_every(names))
    turns.random.shuffle(everything)
    for number in turns:
        data = everything[number % len(everything)]
        figures.tried += 1
        figures.seen[look_at(data, figures)] += 1
    figures.measure("different inputs", min(figures.tried, len(everything)))
    return figures


def _every(names: Names) -> Iterator[Any]:
    for name in sorted({*names.members, *names.data}):
        yield {TAG: "function", "name": name}
        yield {TAG: "function", "name": f"{APP}:{name.replace(':', '.')}"}
        yield {TAG: "module", "name": name.partition(":")[0]}
        yield {TAG: "type", "name": name}
    for name in sorted({*names.data, *names.classes}):
        for tag in ("model", "dataclass", "namedtuple"):
            yield {TAG: tag, "type": name, "shape": "0", "value": {}}
        yield {TAG: "enum", "type": name, "value": 1}
        for attribute in names.attributes(name):
            owner = {TAG: "model" if attribute.startswith("model") else "dataclass", "type": name, "value": {}}
            yield {TAG: "function", "method": attribute, "self": {TAG: "type", "name": name}}
            yield {TAG: "function", "method": attribute, "self": owner}


# --- what costs more than it should --------------------------------------------------------------------------------

MOST_BYTES = 300 * 2**20
"""How much memory reading a payload of Temporal's two megabytes may take."""
_SIZE = 2_000_000


def _bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return packer.compress(b"{") + b"".join(packer.compress(b" " * 2**20) for _ in range(megabytes)) + packer.flush()


def _nested(depth: int, make: Callable[[Any], Any]) -> Any:
    data: Any = 1
    for _ in range(depth):
        data = make(data)
    return data


def _costly(chance: random.Random) -> dict[str, Callable[[], Any]]:
    prime, item = 2**61 - 1, f"{APP}:Item"
    shape = encode(app.Item())["shape"]  # type: ignore[index, call-overload]
    pairs = [[k * prime, 1] for k in range(_SIZE // 25)]
    return {
        "keys of one hash": lambda: {TAG: "dict", "value": pairs},
        "elements of one hash": lambda: {TAG: "set", "value": [key for key, _ in pairs]},
        "decimals of one hash": lambda: {TAG: "set", "value": [{TAG: "decimal", "value": str(k)} for k, _ in pairs[:40_000]]},
        "a fraction with an exponent": lambda: {TAG: "fraction", "value": "1e100000000"},
        "ranges without regard to case": lambda: {
            TAG: "pattern", "value": "[\u0100-\uffff]" * (_SIZE // 20), "flags": 2},
        "inline flags": lambda: {TAG: "pattern", "value": "(?i)" + "[\\x00-\\U0010ffff]" * 1_000, "flags": 0},
        "many patterns": lambda: [{TAG: "pattern", "value": f"(a?){{{n}}}" * 20, "flags": 0} for n in range(10_000)],
        "instances without fields": lambda: {
            TAG: "list", "of": {TAG: "model", "type": item, "shape": shape}, "value": [{}] * (_SIZE // 4)},
        "instances with a field": lambda: {
            TAG: "list", "of": {TAG: "model", "type": item, "shape": shape}, "value": [{"sku": ""}] * (_SIZE // 12)},
        "generic classes": lambda: [
            {TAG: "model", "type": {"generic": f"{APP}:Page", "of": [{"literal": [n]}]}, "value": {}} for n in range(20_000)],
        "a type of many parts": lambda: {
            TAG: "model", "type": {"generic": f"{APP}:Page", "of": [{"literal": list(range(100_000))}]}, "value": {}},
        "a deep type": lambda: {TAG: "type", "name": _nested(300, lambda it: {"generic": "builtins:list", "of": [it]})},
        "deep lists": lambda: _nested(900, lambda it: [it]),
        "deep tuples": lambda: _nested(450, lambda it: {TAG: "tuple", "value": [it]}),
        "deep partials": lambda: _nested(300, lambda it: {
            TAG: "function", "partial": _ADD, "arguments": [it], "keywords": {}}),
        "flags": lambda: [{TAG: "enum", "type": f"{LIBRARY}:Flags", "value": 2**200 + n} for n in range(20_000)],
        "a large integer": lambda: {TAG: "int", "value": "f" * _SIZE},
        "a long address": lambda: {TAG: "ip", "class": "IPv6Address", "value": ":" * _SIZE},
        "a long zone": lambda: {TAG: "zone", "value": "a/" * 100_000},
        "a long name": lambda: {TAG: "model", "type": "x" * _SIZE, "value": {}},
        "a long tag": lambda: {TAG: "x" * _SIZE},
    }  # fmt: skip


@attack
async def costs_of_payloads(turns: Turns) -> Figures:
    """Payloads of Temporal's size that would take minutes or gigabytes to read."""
    figures = Figures()
    warm_up()
    costly = list(_costly(turns.random).items())
    turns.random.shuffle(costly)
    for name, make in costly:  # all of them, however little time there is
        data = make()
        figures.tried += 1
        tracemalloc.start()
        began = time.perf_counter()
        try:
            read(data)
            figures.seen["read"] += 1
        except SteporalError as err:
            figures.seen["refused"] += 1
            if len(str(err)) > 5_000:
                figures.breaks("an error message is short", f"{len(str(err))} of {name}")
        took, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        figures.measure("seconds to read a payload", took)
        figures.measure("bytes to read a payload", peak)
        if took > 2 * SECONDS_PER_INPUT:
            figures.breaks("a payload is read within seconds", f"{took:.1f} s for {name}")
        if peak > MOST_BYTES:
            figures.breaks("a payload is read within its memory", f"{peak:,} bytes for {name}")
    return figures


@attack
async def packed_payloads(turns: Turns) -> Figures:
    """Compressed state that grows a thousandfold."""
    figures, bomb = Figures(), _bomb(256)
    for number in turns:
        packed = bomb if number % 2 == 0 else _spoilt(turns.random)
        figures.tried += 1
        tracemalloc.start()
        try:
            unpack_json(packed)
            figures.seen["read"] += 1
        except ValueError:
            figures.seen["refused"] += 1
        try:
            read_carried({"zlib": packed.hex()})
            figures.breaks("what is no state of a run is refused", packed[:100])
        except ValueError:
            figures.seen["refused"] += 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        figures.measure("bytes to unpack", peak)
        if peak > MOST_BYTES:
            figures.breaks("what is unpacked has a bound", f"{peak:,} bytes")
    return figures


def _spoilt(chance: random.Random) -> bytes:
    packed = bytearray(zlib.compress(json.dumps({"is_parked": False, "started": 1, "seed": "f"}).encode()))
    for _ in range(chance.randrange(1, 4)):
        packed[chance.randrange(len(packed))] = chance.randrange(256)
    return bytes(packed[: chance.randrange(1, len(packed) + 1)])
