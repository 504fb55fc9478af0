"""Modules that are loaded again for each run, so that no two runs share a variable.

A module's code is taken from memory: a file that is edited under a running worker changes nothing in it, and the body
and the steps of a run are always of one version. Classes that are only data are not made again (``shared_classes.py``).
"""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from types import CodeType
from typing import Any

from .shared_classes import shared_classes


class AllExcept(set[str]):
    """A set of module names that has every name but these, and but the packages that these are in.

    A package has to be loaded again with a module in it, or the module would be bound to the real package.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        super().__init__()
        self.reloaded = frozenset(
            ".".join(parts[: i + 1]) for parts in (m.split(".") for m in modules) for i in range(len(parts))
        )

    def __contains__(self, name: object) -> bool:
        return name not in self.reloaded


class ModuleCode:
    """The code of modules, read once, to load them again from memory.

    Args:
        names: The modules, all of which the process has loaded.
    """

    def __init__(self, names: Iterable[str]) -> None:
        modules = {name: sys.modules[name] for name in names}
        self._specs = {name: module.__spec__ for name, module in modules.items() if module.__spec__ is not None}
        self._code = {name: code for name, spec in self._specs.items() if (code := _code_of(spec)) is not None}
        self._shared = shared_classes(modules, self._code)

    def load(self, name: str) -> None:
        """Load a module again, within the sandbox's ``sys.modules``."""
        if name in sys.modules:
            return
        parent, _, child = name.rpartition(".")
        if parent:
            self.load(parent)
            if name in sys.modules:
                return
        if name not in self._code:
            importlib.import_module(name)
            return
        module = module_from_spec(self._specs[name])
        module.__dict__["__builtins__"] = {**vars(builtins), "__build_class__": _class_builder(self._shared[name])}
        sys.modules[name] = module
        try:
            exec(self._code[name], module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
        if parent:
            setattr(sys.modules[parent], child, module)


def _code_of(spec: ModuleSpec) -> CodeType | None:
    get_code = getattr(spec.loader, "get_code", None)
    return get_code(spec.name) if get_code else None


def _class_builder(shared: dict[str, type]) -> Callable[..., Any]:
    """What a ``class`` statement of a module calls: takes a class that is shared, and makes all others."""

    def build_class(body: Any, name: str, /, *bases: Any, **options: Any) -> Any:
        if body.__qualname__ == name and name in shared:
            return shared[name]
        return builtins.__build_class__(body, name, *bases, **options)

    return build_class
