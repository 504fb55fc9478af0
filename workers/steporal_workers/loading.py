"""Loading of a client from ``module:attribute``."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import site
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from .problems import Mistake

if TYPE_CHECKING:
    import steporal


def load_client(target: str) -> steporal.Client:
    """Return the client that ``module:attribute`` names, or the only client of ``module``.

    The current directory is searched for modules first, as with ``python -m``.

    Raises:
        Mistake: The module does not exist, its import fails, or it does not contain the client.
    """
    module_name, _, attribute = target.partition(":")
    module = import_module(module_name, target)
    return _attribute(module, attribute) if attribute else _single(module)


def check_exists(target: str) -> None:
    """Check, without importing anything, that the target's top-level module exists.

    Raises:
        Mistake: The module does not exist.
    """
    module_name = target.partition(":")[0]
    _search_current_directory()
    _check_name(module_name, target)
    top = module_name.partition(".")[0]
    if importlib.util.find_spec(top) is None:
        raise _no_module(module_name)


def import_module(module_name: str, target: str | None = None) -> ModuleType:
    """Import one of the user's modules; an error shows only the user's lines of the traceback.

    Args:
        module_name: Its name.
        target: The text that the user typed; the module's name by default.

    Raises:
        Mistake: The module does not exist, or its import fails.
    """
    target = module_name if target is None else target
    _search_current_directory()
    _check_name(module_name, target)
    try:
        return importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as err:  # also SystemExit: a module may call sys.exit() when it is imported
        own_frames = _own_frames(err)
        missing = isinstance(err, ModuleNotFoundError) and f"{module_name}.".startswith(f"{err.name}.")
        if missing and not own_frames:
            raise _no_module(module_name) from None
        raise Mistake(f"importing {module_name!r} failed: {_one_line(err)}", _own_traceback(err, own_frames)) from None


def _search_current_directory() -> None:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


def _check_name(module_name: str, target: str) -> None:
    path = Path(module_name)
    if path.suffix == ".py" or len(path.parts) > 1:
        dotted = ".".join(path.with_suffix("").parts)
        attribute = target.partition(":")[2]
        raise Mistake(
            f"{target!r} is a file path; name the module instead: {dotted}{':' if attribute else ''}{attribute}"
        )
    if not module_name or not all(part.isidentifier() for part in module_name.split(".")):
        raise Mistake(f"{target!r} is not a module and a client; write MODULE:CLIENT, such as shop.app:client")


def _no_module(module_name: str) -> Mistake:
    here = Path.cwd()
    nearby = [p.stem for p in here.glob("*.py")] + [p.parent.name for p in here.glob("*/__init__.py")]
    close = difflib.get_close_matches(module_name.partition(".")[0], nearby, n=1)
    hint = f"; did you mean {close[0]!r}?" if close and close[0] != module_name.partition(".")[0] else ""
    return Mistake(f"there is no module {module_name!r} in {here}, and it is not installed{hint}")


# --- the client in the module --------------------------------------------------------------------------------------


def clients_of(module: ModuleType) -> dict[str, steporal.Client]:
    """Return the clients of a module, by the names of its variables."""
    import steporal

    clients: dict[str, steporal.Client] = {}
    for name, value in vars(module).items():
        if isinstance(value, steporal.Client) and not any(value is other for other in clients.values()):
            clients[name] = value
    return clients


def _single(module: ModuleType) -> steporal.Client:
    clients = clients_of(module)
    if not clients:
        raise Mistake(
            f"module {module.__name__!r} has no steporal.Client, such as client = steporal.Client('shop'); "
            f"{_what_it_has(module)}"
        )
    if len(clients) > 1:
        names = ", ".join(f"{module.__name__}:{name}" for name in clients)
        raise Mistake(f"module {module.__name__!r} has {len(clients)} clients; name one: {names}")
    return next(iter(clients.values()))


def _attribute(module: ModuleType, path: str) -> steporal.Client:
    import steporal

    value: object = module
    for name in path.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            clients = clients_of(module)
            has = f"its clients are: {', '.join(clients)}" if clients else _what_it_has(module)
            raise Mistake(f"module {module.__name__!r} has no {path!r}; {has}") from None
    if not isinstance(value, steporal.Client):
        clients = clients_of(module)
        has = f"; its clients are: {', '.join(clients)}" if clients else ""
        kind = type(value).__qualname__
        raise Mistake(f"{module.__name__}:{path} is of type {kind!r}, not a steporal.Client{has}")
    return value


def _what_it_has(module: ModuleType) -> str:
    names = [name for name in vars(module) if not name.startswith("_")]
    return f"it has: {', '.join(names[:20])}{', …' * (len(names) > 20)}" if names else "it is empty"


# --- the user's part of a traceback --------------------------------------------------------------------------------


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    return [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename)]


def _is_own(filename: str) -> bool:
    if filename.startswith("<"):
        return False
    path = os.path.realpath(filename)
    return not any(path.startswith(f"{folder}{os.sep}") for folder in _OTHERS)


def _others() -> list[str]:
    folders = [
        *site.getsitepackages(),
        site.getusersitepackages(),
        sysconfig.get_path("stdlib"),
        os.path.dirname(__file__),
    ]
    spec = importlib.util.find_spec("steporal")
    folders += spec.submodule_search_locations or [] if spec else []
    return [os.path.realpath(folder) for folder in folders]


_OTHERS = _others()


def _own_traceback(error: BaseException, frames: list[traceback.FrameSummary]) -> str:
    lines = ["Traceback (most recent call last, your code):\n", *traceback.format_list(frames)] if frames else []
    return "".join([*lines, *traceback.format_exception_only(error)])


def _one_line(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
