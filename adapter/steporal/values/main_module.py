"""Name of the module that is ``__main__`` in this process, as every other process imports it."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

MAIN = "__main__"


@functools.cache
def name_of_main() -> str | None:
    """Return the name by which ``__main__`` can be imported: ``python -m`` knows it, else it is the file's."""
    main = sys.modules[MAIN]
    file = getattr(main, "__file__", None)
    if file is None:  # an interactive session, or `python -c`
        return None
    spec = getattr(main, "__spec__", None)
    name = spec.name if spec is not None else Path(file).stem
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if found is None or found.origin is None or not os.path.exists(found.origin):
        return None
    return name if os.path.samefile(found.origin, file) else None


def imported_name(module: str) -> str:
    """Return the name by which other processes import a module of this one."""
    return (name_of_main() or MAIN) if module == MAIN else module


def loaded_module(name: str) -> ModuleType | None:
    """Return the module of a name, if this process has loaded it; ``__main__`` goes by its imported name too."""
    module = sys.modules.get(name)
    return sys.modules[MAIN] if module is None and name == name_of_main() else module
