"""The watch refuses calls that the app's code makes, and no others."""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import pydantic
import pytest

from steporal.closures.own_code import OwnCode
from steporal.sandbox.forbidden import forbidden
from steporal.sandbox.watch import ForbiddenCallError, GlobalChangedError, Watch, global_writes, in_body

number = 1


@pytest.fixture
def watch() -> Watch:
    """Watches this module and those beside it."""

    async def handler() -> None: ...

    return Watch(OwnCode([handler]))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: time.time(), "time.time"),
        (lambda: time.localtime(), "time.localtime"),
        (lambda: time.strftime("%Y"), "time.strftime"),
        (lambda: datetime.now(), "datetime.datetime.now"),
        (lambda: random.random(), "random.random"),
        (lambda: random.randint(1, 2), "random.randint"),
        (lambda: random.Random(), "random.Random"),
        (lambda: uuid.uuid4(), "uuid.uuid4"),
        (lambda: os.environ["PATH"], "os.environ"),
        (lambda: "PATH" in os.environ, "os.environ"),
        (lambda: os.getenv("PATH"), "os.getenv"),
        (lambda: os.urandom(1), "os.urandom"),
        (lambda: [os.getcwd() for _ in range(1)], "os.getcwd"),
        (lambda: model_with_a_default_by_chance(), "uuid.uuid4"),
    ],
)
def test_a_call_that_is_not_deterministic_is_refused(watch: Watch, call: Callable[[], Any], name: str) -> None:
    with pytest.raises(ForbiddenCallError, match=name), watch():
        in_body(call)
    assert isinstance(watch.error, ForbiddenCallError)
    assert watch.error.qualified_name == name


def model_of_a_class(**fields: Any) -> pydantic.BaseModel:
    made: pydantic.BaseModel = pydantic.create_model("Made", **fields)()
    return made


def model_with_a_default_by_chance() -> pydantic.BaseModel:
    return model_of_a_class(id=(uuid.UUID, pydantic.Field(default_factory=uuid.uuid4)))


@pytest.mark.parametrize(
    "call",
    [
        lambda: time.localtime(0),
        lambda: time.localtime(*[0]),
        lambda: time.strftime("%Y", time.gmtime(0)),
        lambda: datetime.fromtimestamp(0),
        lambda: random.Random(1).randint(1, 2),
        lambda: uuid.UUID(int=1),
        lambda: os.path.join("a", "b"),
        lambda: os.fspath("a"),
        lambda: uuid.uuid5(uuid.NAMESPACE_DNS, "a"),
        lambda: model_of_a_class(n=(int, 1)),
        lambda: pydantic.TypeAdapter(dict[str, int]).validate_python({"a": 1}),
        lambda: pydantic.RootModel[list[bytes]]([b"a"]),
        lambda: pydantic.validate_call(lambda value: value)(1),
    ],
)
def test_what_gives_the_same_result_each_time_is_allowed(watch: Watch, call: Callable[[], Any]) -> None:
    with watch():
        in_body(call)
    assert watch.error is None


def test_an_error_that_is_caught_is_remembered(watch: Watch) -> None:
    def body() -> None:
        with suppress(Exception):
            time.time()

    with watch():
        in_body(body)
    assert isinstance(watch.error, ForbiddenCallError)


def test_other_threads_are_not_watched(watch: Watch) -> None:
    drawn: list[float] = []
    waits, goes_on = threading.Event(), threading.Event()

    def step() -> None:
        waits.set()
        goes_on.wait(10)
        drawn.append(random.random())

    thread = threading.Thread(target=step)
    thread.start()
    waits.wait(10)
    with watch():
        in_body(goes_on.set)
        in_body(thread.join, 10)
    assert drawn
    assert watch.error is None


def test_nothing_is_watched_afterwards(watch: Watch) -> None:
    with watch():
        in_body(int)
    assert time.time()


@pytest.fixture
def restored() -> Iterator[None]:
    global number
    yield
    number = 1


def assign(value: int) -> None:
    global number
    number = value


def test_a_global_variable_that_was_changed_is_found(watch: Watch, restored: None) -> None:
    with watch():
        in_body(assign, 2)
    assert isinstance(watch.error, GlobalChangedError)
    assert watch.error.variable == "number"
    assert global_writes(assign.__code__) == ("number",)


def test_a_global_variable_that_is_given_the_value_that_it_has_is_not_changed(watch: Watch, restored: None) -> None:
    with watch():
        in_body(assign, 1)
    assert watch.error is None


def test_the_methods_of_the_modules_generator_are_forbidden_and_those_of_others_are_not() -> None:
    [*targets] = forbidden().codes[id(random.Random.randint.__code__)]
    assert [target.name for target in targets if target.is_called_on(lambda: random.Random(1))] == []
    assert [target.name for target in targets if target.is_called_on(lambda: random.random.__self__)] == [  # type: ignore[attr-defined]
        "random.randint"
    ]
