"""Public classes and functions are named by the package, not by the module that happens to define them.

A traceback says ``steporal.StepError``, and a payload ``steporal:ReceivedEvent``. So modules can be split and renamed
without a change of what is in histories.
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
    """Have classes and functions of ours say that they are of the package.

    Args:
        things: What the package exports. What another package defines is left alone.
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

    Whoever reads them, such as pydantic for a model with a field of this class, looks their names up in the class's
    module, and those that are not public are not in the package.
    """
    hints = typing.get_type_hints(cls, localns=namespace, include_extras=True)
    cls.__annotations__ = {name: hints[name] for name in inspect.get_annotations(cls)}
    for field in dataclasses.fields(cls):
        field.type = hints[field.name]
