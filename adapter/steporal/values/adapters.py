"""Pydantic's adapters of types, created once for each type."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pydantic


def adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    """Return the ``TypeAdapter`` of a type."""
    try:
        return _cached_adapter(kind)
    except TypeError:  # the type is not hashable, such as Annotated with a list
        return pydantic.TypeAdapter(kind)


@lru_cache(maxsize=1024)
def _cached_adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(kind)
