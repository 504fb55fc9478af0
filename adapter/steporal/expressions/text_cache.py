"""A cache of what is made of texts, bounded by their length."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MAX_CACHED_CHARACTERS = 1_000_000
"""Of all texts in one cache. A compiled expression takes some 30 bytes for each of its characters."""


class TextCache(OrderedDict[Any, Any]):
    """What was made of texts, the one that was used last at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.characters: int = 0
        self._lock = threading.Lock()

    def find(self, key: tuple[str, Any]) -> list[Any]:
        """Return what was made of a text, in a list; an empty list for nothing."""
        with self._lock:
            if key not in self:
                return []
            self.move_to_end(key)
            return [self[key]]

    def keep(self, key: tuple[str, Any], made: Any) -> None:
        """Keep what was made of a text, and give up what was not used for longest."""
        with self._lock:
            if key not in self:
                self.characters += len(key[0])
            self[key] = made
            while self.characters > MAX_CACHED_CHARACTERS:
                (text, _), _ = self.popitem(last=False)
                self.characters -= len(text)


def cached(make: Callable[Concatenate[str, P], T]) -> Callable[Concatenate[str, P], T]:
    """Decorate a pure function of a text with a cache of its own; what it raises is not kept."""
    cache = TextCache()

    @wraps(make)
    def made(text: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if not isinstance(text, str):
            return make(text, *args, **kwargs)
        key = text, (args, tuple(kwargs.items()))
        if found := cache.find(key):
            result: T = found[0]
            return result
        result = make(text, *args, **kwargs)
        cache.keep(key, result)
        return result

    made.cache = cache  # type: ignore[attr-defined]
    return made
