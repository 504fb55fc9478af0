"""Crafted payloads: from scratch, and from those that a run sends."""

from __future__ import annotations

import functools
import json
import random
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pydantic

import steporal_workers.cli
import steporal_workers.connection  # noqa: F401 (a worker has all of it loaded)
from steporal.closures.references import Describer
from steporal.values.decoding import _TAGS
from steporal.values.encoding import TAG, encode
from steporal.values.leaves import LOADERS

from .payload_app import APP, LIBRARY, PACKAGES, app


class NoCaptives:
    """A run that has no context."""

    def encode(self, value: Any) -> Any:
        return None

    def is_step(self, value: Any) -> bool:
        return False


def references() -> list[Any]:
    """The calls of the app's own step functions, as a run sends them."""
    describer = Describer("w", app.handler, PACKAGES, NoCaptives())
    functions = app.handler(app.VALUES[0])
    return [json.loads(json.dumps(describer.call("s", each, ()))) for each in functions]


def values() -> list[Any]:
    """Values of every kind, as they are sent."""
    return [json.loads(json.dumps(encode(each, packages=PACKAGES))) for each in app.VALUES]


_TAG_NAMES = [*LOADERS, *_TAGS, "model", "function", "module", "type", "context", "annotated", "typed", "returned", "?"]
_KEYS = (  # noqa: SIM905
    "value type shape of extra private set unset name class flags bytes factory maxlen zone fold method self "
    "partial arguments keywords workflow root path code captured defaults kwdefaults variable enclosing alias "
    "generic literal"
).split()
_DUNDERS = (  # noqa: SIM905
    "__class__ __init__ __new__ __reduce_ex__ __setstate__ __setattr__ __getattribute__ __dict__ __globals__ "
    "__code__ __subclasses__ __call__ __del__ __module__ __builtins__ __wrapped__ __func__ __self__ __doc__ mro "
    "register parse_raw parse_file model_validate model_validate_json model_construct model_rebuild model_post_init "
    "from_orm"
).split()
_ODD: list[Any] = [
    None, True, -1, 0, 2**63, 10**30, 1.5, 1e308, "", "x", "\0", "é" * 300, "../../etc/passwd", "/etc/passwd",
    "(" * 500, "(?i)[\\0-\\U0010ffff]", "1e999999999", "9" * 5000, "UTC", "America/New_York", "os.path/x", [], {},
    [[]], [{}],    {"$": []}, {"offset": 1e18}, {"pydantic": 5}, {"pydantic": 10**9}, ["a", "b"],
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
            {"workflow": "w", "path": chance.choice(["<lambda>", "nested"]), "code": "0",
             "captured": {"x": self.odd()}},
            {"workflow": "w", "variable": chance.choice(["library", "os", "x"]), "code": ""},
            {"partial": {TAG: "function", "name": self.name()}, "arguments": [self.odd()],
             "keywords": {}},
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
        from steporal.values.shapes import shape_of

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
