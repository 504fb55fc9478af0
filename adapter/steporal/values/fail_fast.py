"""Validators that stop at the first wrong item of a list, dict or set.

Pydantic finds all that is wrong before it raises, in every item and by every member of a union. Strangers could send
data that makes gigabytes of that: 80 KB of empty objects, where a list takes any of five models with twenty fields, are
two million issues. Pydantic's schemas of containers have a flag for it, ``fail_fast``, which is set here throughout a
type.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic_core import SchemaValidator

from .adapters import adapter
from .recursive_unions import counted, has_recursive_union, is_recursive

_CONTAINERS = frozenset({"list", "set", "frozenset", "tuple", "dict", "deque", "counter", "ordered-dict", "frozendict"})
_NO_SCHEMAS = frozenset({"cls", "config", "default", "expected", "function", "metadata", "ref", "serialization"})
"""Keys of a schema under which there are no schemas that validate."""


@lru_cache(maxsize=1024)
def fail_fast_validator(kind: Any) -> SchemaValidator | None:
    """Return a validator of a type that stops at the first wrong item; None if there can be none.

    Raises:
        TypeError: The type is not hashable.
    """
    try:
        schema = _failing_fast(adapter(kind).core_schema)
        # A model has a validator already, which would be used for it in a schema, too; but not with this.
        return SchemaValidator(schema, _use_prebuilt=False)
    except (
        Exception
    ):  # an unfinished type, a schema of another version of pydantic: then its ordinary validator is used
        return None


@lru_cache(maxsize=1024)
def may_be_costly(kind: Any) -> bool:
    """Return whether little data may cost much, as a type has a union that contains itself.

    Raises:
        TypeError: The type is not hashable.
    """
    try:
        return has_recursive_union(adapter(kind).core_schema)
    except Exception:  # an unfinished type
        return False


def _failing_fast(part: Any) -> Any:
    if isinstance(part, list | tuple):
        return type(part)(map(_failing_fast, part))
    if not isinstance(part, Mapping):
        return part
    kind = part.get("type")
    if not isinstance(kind, str):  # schemas by the name of a field
        return {key: _failing_fast(value) for key, value in part.items()}
    changed = {key: value if key in _NO_SCHEMAS else _failing_fast(value) for key, value in part.items()}
    if kind == "union" and is_recursive(part.get("choices")):
        return counted(changed)
    return {**changed, "fail_fast": True} if kind in _CONTAINERS else changed
