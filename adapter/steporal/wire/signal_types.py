"""Names for the types of signal data, so that a worker can check the data before the waiting run receives it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pydantic

from ..closures.code import unwrapped
from ..errors import UnserializableError
from ..types import JSON
from ..values.converter import issues, validate
from ..values.known_types import is_class, is_own
from ..values.type_names import TypeNotFoundError, find_type, load_module, name_of

_VARIABLE = "variable"


def type_to_check(schema: Any, handler: Callable[..., Any]) -> JSON:
    """Return the name of a wait's schema.

    Returns:
        The name; None if another process cannot find the schema, because it is made inside the handler and no variable
        of the handler's module holds it. In that case only the run itself checks the data.
    """
    if schema is None:
        return None
    try:
        return name_of(schema)
    except UnserializableError:
        pass
    plain = unwrapped(handler)
    names = plain.__globals__.items() if plain is not None else ()
    variable = next((name for name, value in names if value is schema), None)
    return None if plain is None or variable is None else {_VARIABLE: [plain.__module__, variable]}


def issues_of(data: JSON, type_name: Any, packages: Collection[str]) -> str | None:
    """Return the issues of a signal's data; None if the data fits, or if this process does not have the type."""
    try:
        schema = _find(type_name, packages)
    except TypeNotFoundError:
        return None
    try:
        validate(data, schema)
    except pydantic.ValidationError as err:
        return issues(err)
    except Exception as err:  # from a validator of the app
        return f"{type(err).__name__}: {err}"
    return None


def _find(type_name: Any, packages: Collection[str]) -> Any:
    if not isinstance(type_name, dict) or _VARIABLE not in type_name:
        return find_type(type_name, packages)
    module, variable = type_name[_VARIABLE]
    if module.partition(".")[0] not in packages:
        raise TypeNotFoundError(f"module {module!r} is not part of the app")
    value = vars(load_module(module, packages)).get(variable)
    if value is None or (is_class(value) and not is_own(value, packages)):  # a class is found by its own name
        raise TypeNotFoundError(f"module {module!r} has no {variable!r}")
    return value
