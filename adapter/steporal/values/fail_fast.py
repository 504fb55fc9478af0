"""Validators that stop at the first wrong item of a list, dict or set.

Pydantic collects all issues before it raises, in every item and for every member of a union. So strangers could send
data that causes gigabytes of issues: if a list takes any of five models with twenty fields, 80 KB of empty objects
cause two million. Pydantic's schemas of containers have a flag against it, ``fail_fast``, which is set here throughout
a type.
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
"""Keys of a schema whose values contain no schemas that validate."""


@lru_cache(maxsize=1024)
def fail_fast_validator(kind: Any) -> SchemaValidator | None:
    """Return a validator of a type that stops at the first wrong item; None if it cannot be made.

    Raises:
        TypeError: The type is not hashable.
    """
    try:
        schema = _failing_fast(adapter(kind).core_schema)
        # A model already has a validator. Pydantic would use that one in a schema, too, but it does not fail fast.
        return SchemaValidator(schema, _use_prebuilt=False)
    except Exception:  # an unfinished type, or a schema of another version of pydantic: the ordinary validator is used
        return None


@lru_cache(maxsize=1024)
def may_be_costly(kind: Any) -> bool:
    """Return whether little data may be expensive, because the type has a union that contains itself.

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
