"""Names of public classes and functions: they belong to the package, not to the module that defines them.

A traceback says ``steporal.StepError``, and a payload ``steporal:ReceivedEvent``. So modules can be split and renamed
without changing what is in histories.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Iterable
from types import FunctionType
from typing import Any

PACKAGE = "steporal"


def publish(things: Iterable[Any]) -> None:
    """Set the module of Steporal's classes and functions to the package.

    Args:
        things: The exports of the package. Those that another package defines are not changed.
    """
    namespace = vars(sys.modules[PACKAGE])
    for thing in things:
        if not isinstance(thing, type | FunctionType) or not thing.__module__.startswith(f"{PACKAGE}."):
            continue
        if isinstance(thing, type) and dataclasses.is_dataclass(thing):
            _resolve(thing, namespace)
        thing.__module__ = PACKAGE


def _resolve(cls: type, namespace: dict[str, Any]) -> None:
    """Replace the annotations of a dataclass that are text.

    Readers of annotations, such as pydantic for a model with a field of this class, look up the names in the class's
    module. Names that are not public are not in the package.
    """
    hints = typing.get_type_hints(cls, localns=namespace, include_extras=True)
    cls.__annotations__ = {name: hints[name] for name in inspect.get_annotations(cls)}
    for field in dataclasses.fields(cls):
        field.type = hints[field.name]
