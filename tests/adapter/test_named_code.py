"""What a payload may name: the app's own code, listed classes, and classes of other packages as data alone."""

from __future__ import annotations

import functools
import gc
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from http import HTTPStatus
from types import ModuleType
from typing import Any

import pytest

from steporal.closures.references import AppCode, Describer, Resolver
from steporal.errors import CaptureError, StepCodeNotFoundError, UnserializableError
from steporal.values.decoding import decode
from steporal.values.encoding import encode
from steporal.values.type_names import TypeNotFoundError

PACKAGES = {"named_app"}

LIBRARY = """
import dataclasses, enum, typing
import pydantic

RAN = []
T = typing.TypeVar("T")

class Invoice(pydantic.BaseModel):
    number: str
    lines: list = pydantic.Field(default_factory=lambda: RAN.append("default") or [])
    def __init__(self, **data):
        RAN.append("__init__")
        super().__init__(**data)
    def model_post_init(self, context): RAN.append("model_post_init")
    @pydantic.field_validator("number")
    @classmethod
    def _check(cls, number):
        RAN.append("validator")
        return number
    def pay(self): RAN.append("pay")
    @property
    def total(self): RAN.append("property")

@dataclasses.dataclass
class Address:
    city: str
    def __post_init__(self): RAN.append("__post_init__")

@dataclasses.dataclass(frozen=True)
class Point:
    x: int

class Named(typing.NamedTuple):
    name: str

class Size(enum.Enum):
    SMALL = 1

class Page(pydantic.BaseModel, typing.Generic[T]):
    items: list[T]

class Closing(pydantic.BaseModel):
    def __del__(self): RAN.append("__del__")

class Comparing(pydantic.BaseModel):
    def __hash__(self): return RAN.append("__hash__") or 1
    def __eq__(self, other): return True
"""

SOURCE = """
import dataclasses
import functools
import pydantic
import named_library

class Order(pydantic.BaseModel):
    number: str = ""
    def charge(self, amount): return f"{self.number} {amount}"
    @classmethod
    def of(cls, number): return cls(number=number)
    @functools.lru_cache
    def cached(self): return 1
    @property
    def secret(self): named_library.RAN.append("property of the app")
    def __call__(self): return 1
    foreign = named_library.Invoice.pay

def helper(*values): return values

def handler(order):
    import json as reader
    from xml.dom import minidom
    amount, alias = 5, reader
    return {
        "module": lambda: reader.dumps(amount),
        "submodule": lambda: minidom.Node.TEXT_NODE,
        "alias": lambda: alias.dumps(amount),
        "other": lambda: amount,
    }
"""


@pytest.fixture
def library() -> Iterator[Any]:
    yield from loaded("named_library", LIBRARY)


@pytest.fixture
def app(library: Any) -> Iterator[Any]:
    yield from loaded("named_app", SOURCE)


def loaded(name: str, source: str) -> Iterator[Any]:
    module: Any = ModuleType(name)
    sys.modules[name] = module
    exec(source, module.__dict__)
    yield module
    del sys.modules[name]


class NoCaptives:
    def encode(self, value: Any) -> Any:
        return None

    def is_step(self, value: Any) -> bool:
        return False


def sent(app: Any, function: Any, *arguments: Any) -> Any:
    describer = Describer("w", app.handler, PACKAGES, NoCaptives())
    return json.loads(json.dumps(describer.call("step", function, arguments)))


def received(app: Any, call: Any) -> tuple[Any, list[Any]]:
    def none(data: Any) -> Any:
        raise AssertionError(data)

    return Resolver(AppCode({"w": app.handler}, PACKAGES), none).call(call)


def through(value: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value, packages=PACKAGES))), packages=PACKAGES)


def crafted(method: str, owner: Any, **more: Any) -> Any:
    return {"function": {"$": "function", "method": method, "self": owner, **more}}


CRAFTED = [
    "parse_raw", "parse_file", "model_validate_json", "model_rebuild", "__init__", "__call__",
    "__deepcopy__", "__reduce_ex__", "__setattr__", "secret", "foreign", "number",
]  # fmt: skip
ORDER = {"$": "model", "type": "named_app:Order", "value": {"number": "A"}}


# --- methods -------------------------------------------------------------------------------------------------------


def test_methods_that_a_class_of_the_app_has_are_steps(app: Any) -> None:
    order = app.Order(number="A")
    for method, arguments in ((order.charge, [5]), (app.Order.of, ["B"]), (order.cached, [])):
        function, values = received(app, sent(app, method, *arguments))
        assert function.__func__ is method.__func__
        assert values == arguments


@pytest.mark.parametrize("name", ["model_dump", "model_copy", "foreign"])
def test_a_method_of_a_library_is_refused_at_the_call_with_the_remedy(app: Any, name: str) -> None:
    with pytest.raises(CaptureError, match="which is not part of the app; wrap it in a lambda"):
        sent(app, getattr(app.Order(), name))


def test_a_method_that_python_calls_itself_is_refused_at_the_call(app: Any) -> None:
    with pytest.raises(CaptureError, match="which Python calls itself; wrap it in a lambda"):
        sent(app, app.Order().__call__)


@pytest.mark.parametrize(
    "name",
    CRAFTED,
)
def test_a_crafted_method_that_the_app_has_not_written_is_not_found(app: Any, name: str) -> None:
    with pytest.raises(StepCodeNotFoundError, match="has no method"):
        received(app, crafted(name, ORDER))
    assert not sys.modules["named_library"].RAN  # type: ignore[attr-defined]


def test_a_crafted_method_by_way_of_a_base_class_is_not_found(app: Any) -> None:
    for of in ("named_app:Order", "pydantic.main:BaseModel", "builtins:object"):
        with pytest.raises(StepCodeNotFoundError):
            received(app, crafted("model_dump", ORDER, of={"$": "type", "name": of}))


def test_a_method_of_another_packages_value_is_not_found(app: Any, library: Any) -> None:
    invoice = encode(library.Invoice.model_construct(number="1", lines=[]), packages=PACKAGES)
    with pytest.raises(StepCodeNotFoundError, match="has no method 'pay' of the app"):
        received(app, crafted("pay", invoice))


# --- classes -------------------------------------------------------------------------------------------------------


def test_values_of_an_imported_package_arrive_and_none_of_its_code_runs(app: Any, library: Any) -> None:
    values = [
        library.Invoice(number="1", lines=[1]),
        library.Address("Rome"),
        {library.Point(1): 1},
        library.Named("n"),
        library.Size.SMALL,
        [library.Address("a"), library.Address("b")],
    ]
    library.RAN.clear()
    assert through(values) == values
    assert library.RAN == []


def test_a_package_that_the_app_does_not_import_is_refused_with_the_remedy(app: Any, library: Any) -> None:
    address = library.Address("Rome")
    encoded = encode(address, packages=PACKAGES)
    del app.named_library
    for of_other in ({"other_app"}, {"named_app_too"}):
        with pytest.raises(UnserializableError, match=r"import 'named_library' at the top .*step_packages=\['named_li"):
            encode([address], packages=of_other)
        with pytest.raises(TypeNotFoundError, match="'named_library:Address' is not part of the app"):
            decode(encoded, packages=of_other)
        assert through_allowed(address) == address


def through_allowed(value: Any) -> Any:
    packages = {"other_app", "named_library"}
    return decode(encode(value, packages=packages), packages=packages)


def test_what_would_run_code_of_another_package_is_refused_to_the_sender(app: Any, library: Any) -> None:
    for value, says in (
        (library.Page[int](items=[1]), "derive a class of the app from it"),
        (library.Closing(), "has a finalizer"),
        ({library.Comparing(): 1}, "compared by code of its class"),
    ):
        with pytest.raises(UnserializableError, match=says):
            encode(value, packages=PACKAGES)


def test_what_would_run_code_of_another_package_is_refused_to_the_reader(app: Any, library: Any) -> None:
    changed = {"$": "model", "type": "named_library:Invoice", "shape": "0", "value": {"number": "1"}}
    comparing = {"$": "set", "value": [encode(library.Comparing(), packages=PACKAGES)]}
    closing = {"$": "model", "type": "named_library:Closing", "shape": encode(library.Closing())["shape"], "value": {}}
    gc.collect()
    library.RAN.clear()
    for data in (changed, comparing, closing):
        with pytest.raises(TypeNotFoundError):
            decode(data, packages=PACKAGES)
    gc.collect()
    assert library.RAN == []


def test_listed_classes_of_python_arrive_and_others_do_not(app: Any) -> None:
    assert through([HTTPStatus.OK, datetime(2026, 1, 1)]) == [HTTPStatus.OK, datetime(2026, 1, 1)]
    for name in ("types:FunctionType", "types:CodeType", "subprocess:Popen", "os:_wrap_close", "functools:partial"):
        with pytest.raises(StepCodeNotFoundError, match="is not one of the classes of package"):
            received(app, {"function": named("helper"), "arguments": [{"$": "type", "name": name}]})
    assert received(app, sent(app, app.helper, int, ValueError, app.Order))[1] == [int, ValueError, app.Order]
    with pytest.raises(CaptureError, match="'functools:partial' is not one of the classes"):
        sent(app, app.helper, functools.partial)


def named(name: str) -> Any:
    return {"$": "function", "name": f"named_app:{name}"}


# --- modules -------------------------------------------------------------------------------------------------------


def test_a_module_is_captured_in_the_variable_into_which_the_handler_imports_it(app: Any) -> None:
    functions = app.handler(None)
    assert received(app, sent(app, functions["module"]))[0]() == "5"
    assert received(app, sent(app, functions["submodule"]))[0]() == 3
    with pytest.raises(CaptureError, match="captured 'alias'"):
        sent(app, functions["alias"])


def test_a_module_in_the_place_of_another_value_is_refused(app: Any) -> None:
    call = sent(app, app.handler(None)["other"])
    assert call["function"]["captured"] == {"amount": 5}
    call["function"]["captured"]["amount"] = {"$": "module", "name": "json"}
    with pytest.raises(StepCodeNotFoundError, match="module 'json' is not part of the app"):
        received(app, call)


def test_a_program_of_the_app_is_not_imported(app: Any) -> None:
    with pytest.raises(StepCodeNotFoundError, match=r"module 'named_app.__main__' is not loaded"):
        received(app, {"function": {"$": "function", "name": "named_app.__main__:main"}})


# --- what is not as we write it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference",
    [
        {},
        {"name": 5},
        {"name": "named_app:named_library.Invoice"},
        {"name": "named_app:Order.__init__"},
        {"enclosing": -1},
        {"enclosing": True},
        {"method": ["charge"], "self": ORDER},
        {"workflow": "w", "path": 5, "code": []},
        {"partial": {}, "arguments": 5},
    ],
)
def test_a_malformed_reference_is_not_found(app: Any, reference: Any) -> None:
    with pytest.raises(StepCodeNotFoundError):
        received(app, {"function": {"$": "function", **reference}})
