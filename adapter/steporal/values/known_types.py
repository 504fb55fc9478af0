"""Classes that a payload may name, and the code that reading a value of them may run.

Whoever can write to a task queue chooses the names. So a name is looked up only in these places:

- the app's own packages, whose code is trusted with anything: their classes may validate a value and compare it;
- an explicit list of classes of Python and of this library;
- packages that a module of the app imports at its top: their classes are only data. An instance is assembled from its
  fields, and no code of its class runs.

Looking up a class does not run code either: names are read from the dictionaries of modules and classes, so that
neither descriptors nor the ``__getattr__`` of a module or metaclass are involved.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Collection
from types import FunctionType, MemberDescriptorType, ModuleType
from typing import Any, TypeGuard

import pydantic

_BUILTINS = (
    "object bool int float complex str bytes bytearray list tuple dict set frozenset range type "
    "Exception ArithmeticError AssertionError AttributeError BufferError ConnectionError ConnectionAbortedError "
    "ConnectionRefusedError ConnectionResetError EOFError FileExistsError FileNotFoundError IndexError "
    "InterruptedError KeyError LookupError MemoryError NotImplementedError OSError OverflowError PermissionError "
    "RecursionError RuntimeError StopAsyncIteration StopIteration TimeoutError TypeError UnicodeDecodeError "
    "UnicodeEncodeError UnicodeError ValueError ZeroDivisionError"
)
_COLLECTIONS = (
    "Awaitable Callable Collection Container Hashable Iterable Iterator Mapping MutableMapping MutableSequence "
    "MutableSet Reversible Sequence Set Sized"
)
_TYPES: dict[str, str] = {
    "builtins": _BUILTINS,
    "types": "NoneType",
    "collections": "Counter OrderedDict defaultdict deque",
    "collections.abc": _COLLECTIONS,
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID",
    "zoneinfo": "ZoneInfo",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath",
    "re": "Pattern",
    "ipaddress": "IPv4Address IPv4Interface IPv4Network IPv6Address IPv6Interface IPv6Network",
    "pydantic.types": "ByteSize Secret SecretBytes SecretStr",
    "pydantic.networks": "AnyHttpUrl AnyUrl AnyWebsocketUrl EmailStr FileUrl FtpUrl HttpUrl NameEmail WebsocketUrl",
}
"""Classes of values that are not taken apart, by module. None of them imports modules or reads files to validate."""

_DATA: dict[str, str] = {
    "http": "HTTPMethod HTTPStatus",
    "urllib.parse": "DefragResult DefragResultBytes ParseResult ParseResultBytes SplitResult SplitResultBytes",
    "uuid": "SafeUUID",
    "signal": "Signals",
    "socket": "AddressFamily SocketKind",
    "calendar": "Day Month",
    "decimal": "DecimalTuple",
    "difflib": "Match",
    "platform": "uname_result",
    "steporal": "FailedWith FetchResponse Input InputExt ReceivedEvent ReceivedSignal RunFailure Secret "
    "SendEventResult SendSignalResult SentEvent StartedRun",
    "temporalio.common": "RetryPolicy",
}
"""Models, dataclasses, enums and named tuples outside of the app, by module."""

STANDARD_TYPES = frozenset(f"{module}:{name}" for module, names in _TYPES.items() for name in names.split())
STANDARD_DATA = frozenset(f"{module}:{name}" for module, names in _DATA.items() for name in names.split())

NEVER_FOREIGN = sys.stdlib_module_names | {
    "pydantic",
    "pydantic_core",
    "steporal",
    "steporal_workers",
    "temporalio",
    "typing_extensions",
}
"""Packages whose unlisted classes are unknown, whoever imports the packages."""


def package_of(module: str) -> str:
    """Return the top-level package of a module."""
    return module.partition(".")[0]


def is_own(thing: Any, packages: Collection[str]) -> bool:
    """Return whether a class or function claims to be of one of ``packages``."""
    return package_of(str(getattr(thing, "__module__", ""))) in packages


def full_name(kind: type) -> str:
    """Return a class's name in the form for payloads."""
    return f"{kind.__module__}:{kind.__qualname__}"


def is_foreign(kind: type, packages: Collection[str]) -> bool:
    """Return whether a class is neither the app's nor listed, so that its code must not run."""
    return not is_own(kind, packages) and full_name(kind) not in STANDARD_DATA


_imported: set[tuple[frozenset[str], str]] = set()


def imports(packages: Collection[str], package: str) -> bool:
    """Return whether a module of ``packages`` imports ``package``, or something from it, at its top.

    Only loaded modules are considered.
    """
    if package in NEVER_FOREIGN:
        return False
    key = frozenset(packages), package
    if key in _imported:
        return True
    for name, module in sys.modules.copy().items():
        if package_of(name) not in packages or not isinstance(module, ModuleType):
            continue
        if any(_home(value) == package for value in list(vars(module).values())):
            _imported.add(key)
            return True
    return False


def _home(value: Any) -> str:
    """Return the top-level package of a module, a class, a function, or an instance of a class."""
    if type(value) is ModuleType:
        return package_of(value.__name__)
    return package_of(str((value if is_class(value) or type(value) is FunctionType else type(value)).__module__))


def is_class(value: Any) -> TypeGuard[type]:
    """Return whether a value is a class; a proxy that only claims to be one is not."""
    return type in type(value).__mro__


def static_member(module: ModuleType, qualname: str) -> Any:
    """Return the member of a module and its classes with a qualified name, or None; no code runs."""
    value: Any = module
    for part in qualname.split("."):
        if value is module:
            value = vars(module).get(part)
        elif is_class(value):
            value = static_attribute(value, part)
        else:
            return None
    return value


def is_data(kind: Any) -> bool:
    """Return whether a class is a model, dataclass, enum or named tuple, without running its code."""
    if not is_class(kind):
        return False
    mro = kind.__mro__
    if BaseException in mro:
        return False
    return (
        pydantic.BaseModel in mro
        or enum.Enum in mro
        or any("__dataclass_fields__" in vars(cls) for cls in mro)
        or (tuple in mro and any("_fields" in vars(cls) for cls in mro))
    )


# --- classes that are only data ------------------------------------------------------------------------------------


def why_not_data_alone(kind: type) -> str | None:
    """Return why instances of another package's class cannot be made without running its code; None if they can."""
    for cls in kind.__mro__:
        if "__del__" in vars(cls):
            return "has a finalizer (__del__)"
    if enum.Enum in kind.__mro__ and _owner(kind, "_missing_").__module__ != "enum":
        return "finds members by its own code (_missing_)"
    for name in _slots(kind):
        if type(static_attribute(kind, name)) is not MemberDescriptorType:
            return f"computes its slot {name!r}"
    return None


def compares_by_code(kind: type) -> bool:
    """Return whether an instance as a key or in a set is hashed or compared by code of its class's package."""
    return not (_is_generated(kind, "__hash__") and _is_generated(kind, "__eq__"))


def _is_generated(kind: type, name: str) -> bool:
    """Return whether a method is Python's or pydantic's, or was generated by ``dataclasses``."""
    owner = _owner(kind, name)
    function = vars(owner)[name]
    if function is None or owner.__module__ in ("builtins", "enum", "pydantic.main", "pydantic.root_model"):
        return True
    if not isinstance(function, FunctionType):
        return False
    module = str(function.__globals__.get("__name__"))
    if module.startswith("pydantic."):
        return True
    return dataclasses.is_dataclass(owner) and function.__code__.co_filename == "<string>"


def _owner(kind: type, name: str) -> type:
    return next(cls for cls in kind.__mro__ if name in vars(cls))


def static_attribute(kind: type, name: str, default: Any = None) -> Any:
    """Return the entry for a name in the dictionary of a class or one of its bases; no code runs."""
    return next((vars(cls)[name] for cls in kind.__mro__ if name in vars(cls)), default)


def _slots(kind: type) -> list[str]:
    names: list[str] = []
    for cls in kind.__mro__:
        if cls.__module__ not in ("pydantic.main", "pydantic.root_model", "typing", "builtins"):
            declared = vars(cls).get("__slots__", ())
            names += [declared] if isinstance(declared, str) else list(declared)
    return [name for name in names if not name.startswith("__")]
