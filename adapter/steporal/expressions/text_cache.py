"""Cache of results made from texts, limited by the length of the texts."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MAX_CACHED_CHARACTERS = 1_000_000
"""Limit for all texts in one cache. A compiled expression takes about 30 bytes for each of its characters."""


class TextCache(OrderedDict[Any, Any]):
    """Results made from texts, in the order of their last use."""

    def __init__(self) -> None:
        super().__init__()
        self.characters: int = 0
        self._lock = threading.Lock()

    def find(self, key: tuple[str, Any]) -> list[Any]:
        """Return the result for a text in a list; an empty list if there is none."""
        with self._lock:
            if key not in self:
                return []
            self.move_to_end(key)
            return [self[key]]

    def keep(self, key: tuple[str, Any], result: Any) -> None:
        """Keep the result for a text, and drop the results that were not used for the longest time."""
        with self._lock:
            if key not in self:
                self.characters += len(key[0])
            self[key] = result
            while self.characters > MAX_CACHED_CHARACTERS:
                (text, _), _ = self.popitem(last=False)
                self.characters -= len(text)


def cached(make: Callable[Concatenate[str, P], T]) -> Callable[Concatenate[str, P], T]:
    """Decorate a pure function of a text with a cache; errors are not cached."""
    cache = TextCache()

    @wraps(make)
    def cached_make(text: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if not isinstance(text, str):
            return make(text, *args, **kwargs)
        key = text, (args, tuple(kwargs.items()))
        if existing := cache.find(key):
            result: T = existing[0]
            return result
        result = make(text, *args, **kwargs)
        cache.keep(key, result)
        return result

    cached_make.cache = cache  # type: ignore[attr-defined]
    return cached_make
