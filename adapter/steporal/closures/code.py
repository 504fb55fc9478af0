"""A function's own code tree: the functions and lambdas written inside it, found by path and fingerprint.

Python keeps the code of nested functions among the constants of the function around them, so a worker that has a
handler has the code of each of its step functions, without running it.
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
    """The code of one function written inside another.

    Attributes:
        path: Its qualified name below the root: ``<lambda>``, ``charge``, ``charge.<locals>.<lambda>``.
        code: The code object.
        parents: The code objects around it, from the root to the nearest.
    """

    path: str
    code: CodeType
    parents: tuple[CodeType, ...]

    def modules(self, name: str) -> frozenset[str]:
        """The modules that the functions around it import into a variable of theirs."""
        return frozenset().union(*(imported_into(parent).get(name, ()) for parent in self.parents))

    def is_outside(self, name: str) -> bool:
        """Whether a free variable belongs to something around the root, and not to the root or what is in it."""
        return all(name not in parent.co_cellvars for parent in self.parents)


def unwrapped(function: Callable[..., Any]) -> FunctionType | None:
    """The plain function below a method, or below decorators that set ``__wrapped__``."""
    inner: Any = function
    for _ in range(_MOST_LAYERS):
        if type(inner) in (MethodType, classmethod, staticmethod):
            below = inner.__func__
        elif type(inner) is FunctionType:
            below = inner.__dict__.get("__wrapped__")
        else:
            below = inspect.getattr_static(inner, "__wrapped__", None)  # an object of a decorator's, whose code may run
        if below is None:
            break
        inner = below
    return inner if isinstance(inner, FunctionType) else None


def layer_codes(function: Callable[..., Any]) -> list[CodeType | None]:
    """The code of a function, and of each one below it that its decorators have wrapped."""
    codes: list[CodeType | None] = []
    layer: Any = getattr(function, "__func__", function)
    while layer is not None and len(codes) < _MOST_LAYERS:
        codes.append(getattr(layer, "__code__", None))
        layer = getattr(layer, "__wrapped__", None)
    return codes


def nested_codes(root: CodeType) -> list[NestedCode]:
    """All code written inside a function, in the order of the source."""
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
    """A digest of what code does: its instructions, names and constants, not its place in the file.

    Two functions with one fingerprint do the same with the same variables. Bytecode differs between Python's minor
    versions, and so do fingerprints.
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
    """Names of variables of an enclosing function that ``code``, or code in it, assigns or deletes."""
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
    """Free variables of ``code`` in the order in which it, or code in it, first reads them; names play no part."""
    found: dict[str, None] = {}
    for instruction in dis.get_instructions(code):
        if isinstance(instruction.argval, CodeType):
            found |= dict.fromkeys(name for name in free_in_order(instruction.argval) if name in code.co_freevars)
        elif instruction.argval in code.co_freevars and instruction.opname != "LOAD_CLOSURE":
            found[instruction.argval] = None
    return tuple({**found, **dict.fromkeys(code.co_freevars)})


@lru_cache(maxsize=4096)
def imported_into(root: CodeType) -> Mapping[str, frozenset[str]]:
    """The modules that a function's import statements bring into its variables, by variable that others capture."""
    found: dict[str, frozenset[str]] = {}
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
            found[after.argval] = found.get(after.argval, frozenset()) | names
    return found


def first_text_argument(code: CodeType, variable: str) -> str | None:
    """The text constant that a method of ``variable`` is called with first: the id in ``step.run("id", …)``."""
    seen = False
    for instruction in dis.get_instructions(code):
        if instruction.argval == variable and instruction.opname.startswith("LOAD_"):
            seen = True
        elif seen and instruction.opname == "LOAD_CONST" and isinstance(instruction.argval, str):
            return instruction.argval
    return None


def position(function: Callable[..., Any]) -> str:
    """Where a function is written: ``app/orders.py:41``; empty if unknown."""
    code = getattr(unwrapped(function), "__code__", None)
    return place(code) if code else ""


def place(code: CodeType) -> str:
    """File, relative to the working directory's last two parts, and line of code."""
    return f"{'/'.join(code.co_filename.replace(chr(92), '/').split('/')[-2:])}:{code.co_firstlineno}"
