"""Name of the ``__main__`` module, by which every other process imports it."""

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
    """Return the name by which ``__main__`` can be imported: the one given to ``python -m``, or the file's."""
    main = sys.modules[MAIN]
    file = getattr(main, "__file__", None)
    if file is None:  # an interactive session, or `python -c`
        return None
    spec = getattr(main, "__spec__", None)
    name = spec.name if spec is not None else Path(file).stem
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    try:
        spec_of_name = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec_of_name is None or spec_of_name.origin is None or not os.path.exists(spec_of_name.origin):
        return None
    return name if os.path.samefile(spec_of_name.origin, file) else None


def imported_name(module: str) -> str:
    """Return the name by which other processes import a module of this process."""
    return (name_of_main() or MAIN) if module == MAIN else module


def loaded_module(name: str) -> ModuleType | None:
    """Return the module of a name if this process has loaded it; ``__main__`` is also found by its imported name."""
    module = sys.modules.get(name)
    return sys.modules[MAIN] if module is None and name == name_of_main() else module
