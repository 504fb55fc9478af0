"""What may run while a payload is read, and what may come of it; not taken from the code under attack."""

from __future__ import annotations

import enum
import functools
import inspect
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import pydantic

import steporal
from steporal.values.known_types import STANDARD_DATA, STANDARD_TYPES

from .payload_app import APP, LIBRARY

_STANDARD = Path(json.__file__).parents[1]
_SITE = Path(pydantic.__file__).parents[1]
_ADAPTER = Path(steporal.__file__).parent
_STANDARD_FILES = (  # noqa: SIM905
    "json re zoneinfo collections importlib ast.py base64.py contextlib.py copy.py copyreg.py "
    "dataclasses.py datetime.py decimal.py dis.py enum.py fractions.py functools.py hashlib.py inspect.py "
    "ipaddress.py linecache.py numbers.py opcode.py pathlib.py pathlib types.py typing.py uuid.py "
    "weakref.py abc.py warnings.py string.py operator.py keyword.py reprlib.py urllib/parse.py"
).split()
_MAY_RUN = tuple(
    str(path)
    for path in (
        _ADAPTER,
        _SITE / "pydantic",
        _SITE / "typing_extensions.py",
        _SITE / "typing_inspection",
        _SITE / "annotated_types",
        *(_STANDARD / name for name in _STANDARD_FILES),
    )
)
_GENERATED = (
    "<string>",
    "<frozen abc>",
    "<frozen importlib",
    "<frozen codecs>",
    "<frozen posixpath>",
    "<frozen os>",
    "<frozen _collections_abc>",
    "<frozen genericpath>",
)
_PART_OF_THIS = str(Path(__file__).parent)

_FORBIDDEN_IN_C = {"posix", "_posixsubprocess", "_socket", "_pickle", "marshal", "_ctypes", "_sqlite3", "_ssl"}
_HARMLESS_IN_C = {"fspath", "stat", "_path_normpath"}
_FORBIDDEN_BUILTINS = {"open", "input", "breakpoint", "__import__"}
_EVENTS = ("open", "import", "os.", "subprocess.", "socket.", "pickle.", "ctypes.", "marshal.", "shutil.", "tempfile.")
_OF_ZONES = str(_STANDARD / "zoneinfo")
_ZONES = ("zoneinfo", "tzdata")


class Oracle:
    """Watches what runs, and keeps what must not."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self._is_on = False
        sys.addaudithook(self._audit)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.ran = []
        self._is_on = True
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._is_on = False

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Watch on, for what runs when an input is let go of."""
        self._is_on = True
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._is_on = False

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._is_on and event.startswith(_EVENTS):
            what = str(arguments[0]) if arguments else ""
            is_of_zones = any(zone in what for zone in _ZONES) or _is_of_zones(sys._getframe(1))
            if not is_of_zones and not what.startswith("pydantic"):
                self.ran.append(f"event {event} {what}")

    def _profile(self, frame: Any, event: str, argument: Any) -> None:
        if not self._is_on:
            return
        if event == "call":
            code: CodeType = frame.f_code
            if not may_run(code.co_filename) and not _is_of_zones(frame):
                self.ran.append(f"{code.co_filename}:{code.co_qualname}")
        elif event == "c_call":
            module = getattr(argument, "__module__", None)
            if module in _FORBIDDEN_IN_C and argument.__name__ not in _HARMLESS_IN_C and not _is_of_zones(frame):
                self.ran.append(f"{module}.{argument.__name__}")
            elif module == "builtins" and argument.__name__ in _FORBIDDEN_BUILTINS and not _is_of_zones(frame):
                self.ran.append(f"builtins.{argument.__name__}")


def _is_of_zones(frame: Any) -> bool:
    """Whether Python looks for a time zone, in files and in the package tzdata, which the finders of modules see."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_OF_ZONES):
            return True
        frame = frame.f_back
    return False


@functools.cache
def may_run(file: str) -> bool:
    """Return whether code of a file may run while an input is read: ours, pydantic's, the app's, some of Python's."""
    if file == f"{APP}.py" or file.startswith((_PART_OF_THIS, *_GENERATED)):
        return True
    return file.startswith(_MAY_RUN)


def is_function_of_app(function: Any) -> bool:
    """Return whether what a reference names is written in the app; other code is not called, however it is wrapped."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, MethodType):
        owner = function.__self__ if isinstance(function.__self__, type) else type(function.__self__)
        if owner.__module__ != APP:
            return False
        function = function.__func__
    plain = inspect.unwrap(function)
    if not isinstance(plain, FunctionType) or plain.__code__.co_filename != f"{APP}.py":
        return False
    return not (plain.__name__.startswith("__") and plain.__name__.endswith("__"))


def parts_not_allowed(value: Any, most: int = 20_000) -> list[str]:
    """Return what in a decoded value is of no class that a payload may name."""
    found: list[str] = []
    seen: set[int] = set()
    rest = [value]
    while rest and most:
        most -= 1
        item = rest.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if type(item) in (FunctionType, MethodType, functools.partial):
            if not is_function_of_app(item):
                found.append(f"function {item!r}")
            continue
        if isinstance(item, ModuleType):
            if item.__name__ not in (APP, "json"):
                found.append(f"module {item.__name__}")
            continue
        kind = item if isinstance(item, type) else type(item)
        name = f"{kind.__module__}:{kind.__qualname__}"
        is_listed = name in STANDARD_DATA | STANDARD_TYPES | _LEAVES or kind.__module__ in _LEAVES_OF
        if kind.__module__ == LIBRARY and isinstance(item, type):
            found.append(f"class {name}")
        elif kind.__module__ not in (APP, LIBRARY) and not is_listed:
            found.append(name)
        if isinstance(item, dict):
            rest += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            rest += item
        elif kind.__module__ in (APP, LIBRARY) and not isinstance(item, type | enum.Enum):
            try:
                rest += object.__getattribute__(item, "__dict__").values()
            except AttributeError:
                continue
    return found


_LEAVES_OF = {
    "datetime", "decimal", "fractions", "uuid", "zoneinfo", "pathlib", "pathlib._local", "ipaddress",
    "pydantic.networks", "pydantic.types", "pydantic_core._pydantic_core",
}  # fmt: skip
"""Modules of which every class is data."""

_LEAVES = {
    f"{module}:{name}"
    for module, names in {
        "builtins": "int str float bool complex bytes bytearray NoneType list tuple dict set frozenset range slice "
        "ellipsis NotImplementedType object",
        "collections": "OrderedDict Counter defaultdict deque",
        "re": "Pattern",
        "types": "GenericAlias",
        "typing": "_SpecialGenericAlias _TupleType",
    }.items()
    for name in names.split()
}
"""Classes of modules that have others, too, which would run code, such as that of code."""
