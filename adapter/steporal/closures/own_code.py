"""Code of the app itself, into which a body is followed."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

_INSTALLED = {"site-packages", "dist-packages"}
_OURS = {"steporal", "steporal_workers", "temporalio"}
_STANDARD = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib"))


class OwnCode:
    """The packages of an app's handlers, and uninstalled code in the folders beside them.

    Args:
        handlers: The handlers.
    """

    def __init__(self, handlers: Iterable[Callable[..., Any]]) -> None:
        modules = {handler.__module__ for handler in handlers}
        self._packages = frozenset(module.partition(".")[0] for module in modules)
        self._folders = tuple(sorted({folder for module in modules if (folder := _root(module))}))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OwnCode):
            return NotImplemented
        return self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    @property
    def parts(self) -> tuple[frozenset[str], tuple[str, ...]]:
        """Packages and folders."""
        return self._packages, self._folders

    def has(self, thing: FunctionType | type) -> bool:
        """Return whether a function or class belongs to the app."""
        if isinstance(thing, FunctionType):
            # A function that wraps another claims to be of the other's module; its globals do not.
            return self.has_code(thing.__code__, str(thing.__globals__.get("__name__")))
        package = thing.__module__.partition(".")[0]
        if package in self._packages or package in _OURS:
            return package in self._packages
        try:
            return self._is_in_folders(inspect.getfile(thing))
        except (OSError, TypeError):
            return False

    def has_code(self, code: CodeType, module: str) -> bool:
        """Return whether code belongs to the app.

        Args:
            code: The code.
            module: The module whose global variables it uses.
        """
        package = module.partition(".")[0]
        if package in self._packages:
            return True
        return package not in _OURS and self._is_in_folders(code.co_filename)

    def files(self) -> set[str]:
        """Return the files of the imported modules that belong to the app."""
        files = set()
        for name, module in tuple(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if not isinstance(file, str):
                continue
            is_installed = file.startswith(_STANDARD) or bool(_INSTALLED & set(file.split(os.sep)))
            if name.partition(".")[0] in self._packages or (not is_installed and self._is_in_folders(file)):
                files.add(file)
        return files

    def functions(self, thing: Any) -> list[FunctionType]:
        """Return the functions of the app that run when a function is called: the function, and those that it wraps."""
        return [function for function in layers(thing) if self.has(function)]

    def _is_in_folders(self, file: str) -> bool:
        if not self._folders or file.startswith("<"):
            return False
        path = _real_path(file)
        return path.startswith(self._folders) and not (_INSTALLED & set(Path(path).parts) or path.startswith(_STANDARD))


def layers(thing: Any) -> Iterator[FunctionType]:
    """Yield a function, and those below it that its decorators wrap; nothing if it is not a function."""
    seen: set[int] = set()
    while thing is not None and id(thing) not in seen:
        seen.add(id(thing))
        if isinstance(thing, MethodType):
            thing = thing.__func__
            continue
        if isinstance(thing, FunctionType):
            yield thing
        thing = inspect.getattr_static(thing, "__wrapped__", None)


@functools.lru_cache(maxsize=10_000)
def _real_path(file: str) -> str:
    """Return the real path of a module's file; cached, because it costs a system call for each folder."""
    return os.path.realpath(file)


def _root(module: str) -> str | None:
    """Return the folder that contains a module's top-level package."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return None
    parts = len(module.split(".")) + (Path(file).name == "__init__.py")
    path = Path(_real_path(file))
    return f"{path.parents[parts - 1]}{os.sep}" if parts <= len(path.parents) else None
