"""Code tree of a function: the functions and lambdas written inside it, found by path and fingerprint.

Python keeps the code of nested functions among the constants of the enclosing function. So a worker that has a handler
also has the code of each of its step functions, without running the handler.
"""

from __future__ import annotations

import dis
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from types import CodeType, FunctionType, MethodType
from typing import Any

LAMBDA = "<lambda>"
_LOCALS = ".<locals>."
_MOST_LAYERS = 100


@dataclass(frozen=True, slots=True)
class NestedCode:
    """Code of a function written inside another.

    Attributes:
        path: The qualified name below the root: ``<lambda>``, ``charge``, ``charge.<locals>.<lambda>``.
        code: The code object.
        parents: The enclosing code objects, from the root to the nearest.
    """

    path: str
    code: CodeType
    parents: tuple[CodeType, ...]

    def modules(self, name: str) -> frozenset[str]:
        """Return the modules that the enclosing functions import into one of their variables."""
        return frozenset().union(*(imported_into(parent).get(name, ()) for parent in self.parents))

    def is_outside(self, name: str) -> bool:
        """Return whether a free variable belongs to a function around the root, and not to the root or its contents."""
        return all(name not in parent.co_cellvars for parent in self.parents)


def unwrapped(function: Callable[..., Any]) -> FunctionType | None:
    """Return the plain function below a method, or below decorators that set ``__wrapped__``."""
    inner: Any = function
    for _ in range(_MOST_LAYERS):
        if type(inner) in (MethodType, classmethod, staticmethod):
            below = inner.__func__
        elif type(inner) is FunctionType:
            below = inner.__dict__.get("__wrapped__")
        else:
            below = inspect.getattr_static(inner, "__wrapped__", None)  # a decorator's object, whose code must not run
        if below is None:
            break
        inner = below
    return inner if isinstance(inner, FunctionType) else None


def layer_codes(function: Callable[..., Any]) -> list[CodeType | None]:
    """Return the code of a function, and of each function below it that its decorators wrap."""
    codes: list[CodeType | None] = []
    layer: Any = getattr(function, "__func__", function)
    while layer is not None and len(codes) < _MOST_LAYERS:
        codes.append(getattr(layer, "__code__", None))
        layer = getattr(layer, "__wrapped__", None)
    return codes


def nested_codes(root: CodeType) -> list[NestedCode]:
    """Return all code written inside a function, in source order."""
    return list(_tree(root))


@lru_cache(maxsize=4096)
def _tree(root: CodeType) -> tuple[NestedCode, ...]:
    prefix = root.co_qualname + _LOCALS

    def walk(code: CodeType, parents: tuple[CodeType, ...]) -> Iterator[NestedCode]:
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield NestedCode(constant.co_qualname.removeprefix(prefix), constant, (*parents, code))
                yield from walk(constant, (*parents, code))

    return tuple(walk(root, ()))


@lru_cache(maxsize=4096)
def fingerprint(code: CodeType) -> str:
    """Return a digest of what code does: its instructions, names and constants, but not its place in the file.

    Two functions with the same fingerprint do the same with the same variables. Bytecode, and so the fingerprint,
    differs between minor versions of Python.
    """
    return hashlib.sha256(repr(_essence(code)).encode()).hexdigest()[:16]


def _essence(constant: Any) -> Any:
    if isinstance(constant, CodeType):
        return (
            constant.co_name,
            constant.co_code.hex(),
            constant.co_names,
            constant.co_varnames,
            constant.co_freevars,
            constant.co_cellvars,
            constant.co_flags,
            constant.co_argcount,
            constant.co_posonlyargcount,
            constant.co_kwonlyargcount,
            [_essence(c) for c in constant.co_consts],
        )
    if isinstance(constant, frozenset):  # the order of its repr differs from process to process
        return ("frozenset", sorted(repr(_essence(c)) for c in constant))
    if isinstance(constant, tuple):
        return ("tuple", [_essence(c) for c in constant])
    return (type(constant).__name__, repr(constant))


@lru_cache(maxsize=4096)
def nonlocal_writes(code: CodeType) -> tuple[str, ...]:
    """Return the variables of enclosing functions that ``code``, or code inside it, assigns or deletes."""
    names = {
        i.argval
        for i in dis.get_instructions(code)
        if i.opname in ("STORE_DEREF", "DELETE_DEREF") and i.argval in code.co_freevars
    }
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= {name for name in nonlocal_writes(constant) if name in code.co_freevars}
    return tuple(sorted(names))


@lru_cache(maxsize=4096)
def free_in_order(code: CodeType) -> tuple[str, ...]:
    """Return the free variables of ``code`` in the order in which it, or code inside it, first reads them.

    The names of the variables do not affect the order.
    """
    ordered: dict[str, None] = {}
    for instruction in dis.get_instructions(code):
        if isinstance(instruction.argval, CodeType):
            ordered |= dict.fromkeys(name for name in free_in_order(instruction.argval) if name in code.co_freevars)
        elif instruction.argval in code.co_freevars and instruction.opname != "LOAD_CLOSURE":
            ordered[instruction.argval] = None
    return tuple({**ordered, **dict.fromkeys(code.co_freevars)})


@lru_cache(maxsize=4096)
def imported_into(root: CodeType) -> Mapping[str, frozenset[str]]:
    """Return the modules that a function imports, by the variable that inner functions capture."""
    modules: dict[str, frozenset[str]] = {}
    module = ""
    for instruction, after in pairwise(dis.get_instructions(root)):
        names: set[str] = set()
        if instruction.opname == "IMPORT_NAME":
            module = instruction.argval
            names = {module.partition(".")[0]}  # what `import a.b` binds
        elif instruction.opname == "IMPORT_FROM":  # of `from a import b`, and of `import a.b as c`
            names = {f"{module}.{instruction.argval}"}
            names |= {module} if module.endswith(f".{instruction.argval}") else set()
        if names and after.opname == "STORE_DEREF":
            modules[after.argval] = modules.get(after.argval, frozenset()) | names
    return modules


def first_text_argument(code: CodeType, variable: str) -> str | None:
    """Return the text constant that a method of ``variable`` gets first: the id in ``step.run("id", …)``."""
    seen = False
    for instruction in dis.get_instructions(code):
        if instruction.argval == variable and instruction.opname.startswith("LOAD_"):
            seen = True
        elif seen and instruction.opname == "LOAD_CONST" and isinstance(instruction.argval, str):
            return instruction.argval
    return None


def position(function: Callable[..., Any]) -> str:
    """Return the place where a function is written, as ``app/orders.py:41``; empty if unknown."""
    code = getattr(unwrapped(function), "__code__", None)
    return place(code) if code else ""


def place(code: CodeType) -> str:
    """Return the last two parts of the file's path, and the line of the code."""
    return f"{'/'.join(code.co_filename.replace(chr(92), '/').split('/')[-2:])}:{code.co_firstlineno}"
