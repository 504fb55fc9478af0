"""Which code is the app's own, into which a body is followed."""

from __future__ import annotations

import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..runtime.code import unwrapped

_INSTALLED = {"site-packages", "dist-packages"}
_OURS = {"steporal", "steporal_workers", "temporalio"}
_STANDARD = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib"))


class OwnCode:
    """The packages of an app's handlers, and what lies in the folders beside them and is not installed.

    Args:
        handlers: The handlers.
    """

    def __init__(self, handlers: Iterable[Callable[..., Any]]) -> None:
        modules = {handler.__module__ for handler in handlers}
        self._packages = {module.partition(".")[0] for module in modules}
        self._folders = tuple({folder for module in modules if (folder := _root(module))})

    def has(self, thing: Any) -> bool:
        """Whether a function or class is the app's own."""
        module = getattr(thing, "__module__", None) or ""
        package = module.partition(".")[0]
        if package in self._packages:
            return True
        if package in _OURS or not self._folders:
            return False
        try:
            file = os.path.realpath(inspect.getfile(thing))
        except (OSError, TypeError):
            return False
        if _INSTALLED & set(Path(file).parts) or file.startswith(_STANDARD):
            return False
        return file.startswith(self._folders)

    def function(self, thing: Any) -> Callable[..., Any] | None:
        """The plain function below a function of the app; None if it is something else."""
        inner = unwrapped(thing) if callable(thing) else None
        return inner if inner is not None and self.has(inner) else None


def _root(module: str) -> str | None:
    """The folder in which a module's top-level package lies."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return None
    parts = len(module.split(".")) + (Path(file).name == "__init__.py")
    path = Path(os.path.realpath(file))
    return f"{path.parents[parts - 1]}{os.sep}" if parts <= len(path.parents) else None
