"""What the package exports is named by the package."""

from __future__ import annotations

import dataclasses
import pickle
import traceback
import typing
from types import FunctionType
from typing import Any

import pydantic
import pytest

import steporal
from steporal.values.type_names import name_of

PUBLIC = {name: getattr(steporal, name) for name in steporal.__all__}
OURS = {
    name: thing
    for name, thing in PUBLIC.items()
    if isinstance(thing, type | FunctionType) and thing.__module__ != "temporalio.common"
}


class Order(pydantic.BaseModel):
    n: int


@pytest.mark.parametrize("name", OURS)
def test_a_public_class_or_function_is_of_the_package(name: str) -> None:
    assert (OURS[name].__module__, OURS[name].__qualname__) == ("steporal", name)


@pytest.mark.parametrize("thing", [thing for thing in OURS.values() if dataclasses.is_dataclass(thing)])
def test_the_annotations_of_a_public_dataclass_can_be_read(thing: Any) -> None:
    assert typing.get_type_hints(thing).keys() == {field.name for field in dataclasses.fields(thing)}
    assert not any(isinstance(field.type, str) for field in dataclasses.fields(thing))


def test_models_may_have_fields_of_public_classes() -> None:
    class Holder(pydantic.BaseModel):
        input: steporal.Input[Order]
        event: steporal.ReceivedEvent

    assert Holder.model_json_schema()["properties"].keys() == {"input", "event"}
    assert name_of(steporal.Input[Order]) == {
        "generic": "steporal:Input",
        "of": [f"{__name__}:Order"],
    }


def test_a_traceback_names_an_error_as_it_is_imported() -> None:
    error = steporal.NonRetryableError("no such order")
    assert traceback.format_exception_only(error) == ["steporal.NonRetryableError: no such order\n"]
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_modules_that_take_much_along_are_loaded_when_they_are_used() -> None:
    assert steporal.encryption.new_key
    assert steporal.lint
    with pytest.raises(AttributeError, match="module 'steporal' has no attribute 'encrypt'"):
        steporal.encrypt  # noqa: B018
