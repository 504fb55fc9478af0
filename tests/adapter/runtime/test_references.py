"""References: never another function than the one that was called, and only the app's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steporal.closures.member_names import defines
from steporal.closures.references import AppCode, Describer, Resolver, find_function
from steporal.errors import CaptureError, NestedStepError, StepCodeNotFoundError
from steporal.values.decoding import decode


class NoCaptives:
    """A run that has no context and whose step is the string 'step'."""

    def encode(self, value: Any) -> Any:
        return None

    def is_step(self, value: Any) -> bool:
        return bool(value == "the step")


def no_captive(data: Any) -> Any:
    raise AssertionError(data)


@pytest.fixture
def module() -> Iterator[Callable[[str], ModuleType]]:
    """Makes, and makes again after an edit, a module of an app."""

    def load(source: str) -> ModuleType:
        loaded = ModuleType("edited_app")
        sys.modules["edited_app"] = loaded
        exec(compile(source, "edited_app.py", "exec"), loaded.__dict__)
        return loaded

    yield load
    sys.modules.pop("edited_app", None)


def call_of(handler: FunctionType, function: Any, *arguments: Any) -> Any:
    """A call, as it arrives at a worker."""
    describer = Describer("w", handler, {"edited_app", "test_references"}, NoCaptives())
    return json.loads(json.dumps(describer.call("step", function, arguments)))


def resolved(handler: FunctionType, call: Any) -> Any:
    """What a worker with this handler runs for a call."""
    app = AppCode({"w": handler}, {"edited_app", "test_references"})
    function, arguments = Resolver(app, no_captive).call(call)
    return function(*arguments)


TWO_LAMBDAS = """
def handler(amount):
    return [lambda: ("charge", amount), lambda: ("refund", amount)]
"""


@pytest.mark.parametrize(
    "edited",
    [
        TWO_LAMBDAS,
        TWO_LAMBDAS.replace("[lambda", "[\n\n        lambda"),
        """
def handler(amount):
    return [lambda: ("refund", amount), lambda: ("charge", amount)]
""",
        """
def handler(amount):
    log = lambda: ("log", amount)
    return [lambda: ("refund", amount), log, lambda: ("charge", amount), log]
""",
    ],
    ids=["unchanged", "moved", "swapped", "one before"],
)
def test_an_edited_file_never_swaps_two_lambdas(module: Callable[[str], ModuleType], edited: str) -> None:
    handler = module(TWO_LAMBDAS).handler
    charge, refund = (call_of(handler, function) for function in handler(5))
    new = module(edited).handler
    assert resolved(new, charge) == ("charge", 5)
    assert resolved(new, refund) == ("refund", 5)


def test_a_lambda_that_the_code_no_longer_has_is_not_found(module: Callable[[str], ModuleType]) -> None:
    handler = module(TWO_LAMBDAS).handler
    charge, _ = (call_of(handler, function) for function in handler(5))
    new = module(TWO_LAMBDAS.replace('"charge"', '"debit"')).handler
    with pytest.raises(StepCodeNotFoundError, match=r"workflow 'w' has no '<lambda>'.*another version of the code"):
        resolved(new, charge)


@given(st.permutations(range(5)), st.sets(st.integers(0, 4), max_size=4))
def test_any_edit_finds_the_same_lambda_or_none(order: list[int], removed: set[int]) -> None:
    def source(numbers: list[int]) -> str:
        lambdas = ", ".join(f"lambda: amount * {number} + {number}" for number in numbers)
        return f"def handler(amount):\n    return [{lambdas}]\n"

    old: dict[str, Any] = {"__name__": "edited_app"}
    new: dict[str, Any] = {"__name__": "edited_app"}
    exec(source(list(range(5))), old)
    exec(source([number for number in order if number not in removed]), new)
    for number, function in enumerate(old["handler"](10)):
        call = call_of(old["handler"], function)
        if number in removed:
            with pytest.raises(StepCodeNotFoundError):
                resolved(new["handler"], call)
        else:
            assert resolved(new["handler"], call) == 11 * number


def test_a_named_function_is_found_after_an_edit_of_its_body(module: Callable[[str], ModuleType]) -> None:
    source = "def handler(amount):\n    def charge():\n        return amount + 1\n    return charge\n"
    handler = module(source).handler
    call = call_of(handler, handler(5))
    assert resolved(module(source.replace("+ 1", "+ 2")).handler, call) == 7


def test_a_named_function_that_now_uses_what_was_not_sent_is_not_found(module: Callable[[str], ModuleType]) -> None:
    source = "def handler(a, b):\n    def charge():\n        return a\n    return [charge, lambda: b]\n"
    handler = module(source).handler
    call = call_of(handler, handler(5, 6)[0])
    with pytest.raises(StepCodeNotFoundError, match="uses 'b', which the run did not send"):
        resolved(module(source.replace("return a", "return a + b")).handler, call)


def test_two_functions_of_one_name_are_told_apart_by_their_code(module: Callable[[str], ModuleType]) -> None:
    source = """
def handler(a):
    def charge(): return ("first", a)
    first = charge
    def charge(): return ("second", a)
    return [first, charge]
"""
    handler = module(source).handler
    first, second = (call_of(handler, function) for function in handler(5))
    assert (resolved(handler, first), resolved(handler, second)) == (("first", 5), ("second", 5))
    swapped = module(source.replace("first", "x").replace("second", "first").replace("x", "second")).handler
    assert resolved(swapped, first) == ("first", 5)
    gone = module(source.replace('"first"', '"third"')).handler
    with pytest.raises(StepCodeNotFoundError):
        resolved(gone, first)


def test_two_lambdas_that_do_the_same_are_one(module: Callable[[str], ModuleType]) -> None:
    handler = module("def handler(a):\n    return [lambda: a, lambda: a]\n").handler
    assert [resolved(handler, call_of(handler, function)) for function in handler(5)] == [5, 5]


def test_a_renamed_workflow_is_not_found(module: Callable[[str], ModuleType]) -> None:
    handler = module(TWO_LAMBDAS).handler
    call = call_of(handler, handler(5)[0])
    with pytest.raises(StepCodeNotFoundError, match="this worker does not define workflow 'w'"):
        Resolver(AppCode({"other": handler}, {"edited_app"}), no_captive).call(call)


def test_a_captured_step_is_a_step_in_a_step() -> None:
    def handler(step: Any) -> Any:
        return lambda: step.run("inner", print)

    with pytest.raises(NestedStepError, match=r"step 'inner' is called inside step 'step'.*test_references\.py:\d+"):
        call_of(handler, handler("the step"))  # type: ignore[arg-type]


def test_a_lambda_at_module_level_is_refused() -> None:
    def handler() -> None: ...

    with pytest.raises(CaptureError, match="neither in the handler nor in a named function"):
        call_of(handler, MODULE_LAMBDA)  # type: ignore[arg-type]


MODULE_LAMBDA = lambda: 1  # noqa: E731


def test_a_function_whose_name_now_means_another_is_refused(module: Callable[[str], ModuleType]) -> None:
    loaded = module("def handler(): ...\ndef charge(): return 1\nold = charge\ndef charge(): return 2\n")
    with pytest.raises(CaptureError, match="now means another function"):
        call_of(loaded.handler, loaded.old)
    assert resolved(loaded.handler, call_of(loaded.handler, loaded.charge)) == 2


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "pathlib:Path.unlink",
        "test_references:pathlib.Path.unlink",
        "test_references:sys.exit",
        "test_references:json.dumps",
        "test_references:find_function",
        "test_references:call_of.__globals__",
        "test_references:call_of.__call__",
        "test_references:NoCaptives",
        "test_references:MODULE_LAMBDA",
        "test_references:",
        "test_references",
        ":system",
        "",
        "test_references.os:system",
    ],
)
def test_what_is_not_a_function_of_the_app_is_not_found(name: str) -> None:
    with pytest.raises(StepCodeNotFoundError):
        find_function(name, {"test_references"})


def test_a_package_with_a_longer_name_is_another() -> None:
    with pytest.raises(StepCodeNotFoundError, match="'test_references'"):
        find_function("test_references_evil:run", {"test_references"})


def test_functions_and_methods_of_the_app_are_found() -> None:
    assert find_function("test_references:call_of", {"test_references"}) is call_of
    assert find_function("test_references:NoCaptives.encode", {"test_references"}) is NoCaptives.encode


class Ledger:
    def __init__(self) -> None:
        self.added = MethodType(lambda ledger, amount: amount, self)

    def add(self, amount: int) -> int:
        return amount


def test_a_method_that_no_class_has_is_refused() -> None:
    def handler() -> None: ...

    with pytest.raises(
        CaptureError, match=r"is given the method 'test_references.Ledger.<lambda>', which cannot be found by name"
    ):
        call_of(handler, Ledger().added)  # type: ignore[arg-type]


def test_a_method_of_another_package_is_refused() -> None:
    def handler() -> None: ...

    with pytest.raises(CaptureError, match=r"Path.read_text', which is not part of the app; wrap it in a lambda"):
        call_of(handler, Path("x").read_text)  # type: ignore[arg-type]


def test_a_crafted_method_of_another_package_is_not_found() -> None:
    def handler() -> None: ...

    path = {"$": "path", "class": "Path", "value": "x"}
    call = {"function": {"$": "function", "method": "unlink", "self": path}}
    assert decode(path) == Path("x")
    with pytest.raises(StepCodeNotFoundError, match="has no method 'unlink' of the app"):
        resolved(handler, call)  # type: ignore[arg-type]


def test_a_name_that_a_module_imports_is_none_of_its_functions() -> None:
    """A replaced function is found by its name; an imported one looks the same, and is not the app's."""
    loaded = sys.modules[__name__]
    assert defines(loaded, "call_of")
    assert defines(loaded, "NoCaptives.encode")
    assert not defines(loaded, "find_function")
    assert not defines(loaded, "MODULE_LAMBDA")
