"""Portable references to step functions: their code, and the values that they captured.

``step.run("charge", lambda: charge(order))`` must run on any worker of the app. So the worker receives the place of the
function's code, and the values of the variables that the function captured from its handler:

- for a function or lambda written inside the handler: the handler's workflow, the path in its code tree, and, if the
  function has no name, a fingerprint of the code;
- for one written beside the handler, inside the same enclosing function: the handler's variable that holds it. The
  worker uses its own function, with its own variables around it;
- for one written inside a module-level function of the app: that function's name, and the same;
- for a module-level function, a method of a value, or a ``functools.partial``: its name, and the values it comes with.

Variables captured from outside the handler are not sent; the worker's own are used. A reference never resolves to
another function than the one that was called, and only to code of the app: of registered workflows, and of functions in
the app's own packages.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol, cast

from ..errors import CaptureError, NestedStepError, StepCodeNotFoundError, SteporalError, UnserializableError
from ..types import JSON
from ..values.decoding import decode
from ..values.encoding import TAG, encode, never
from ..values.known_types import is_class, package_of, static_member
from ..values.main_module import loaded_module
from ..values.type_names import TypeNotFoundError, find_data_class, find_type, load_module, name_of, shown, type_label
from .code import (
    LAMBDA,
    NestedCode,
    fingerprint,
    first_text_argument,
    free_in_order,
    layer_codes,
    nested_codes,
    nonlocal_writes,
    place,
    position,
    unwrapped,
)
from .member_names import defines, global_name, imported_from, is_dunder, is_written_in, member, method_name

_FUNCTION = "function"
_OPEN_INSIDE = "open it inside the step, or pass what it needs as JSON, a pydantic model or a dataclass"
_AROUND = "around it, "
_CALLABLE = "function "
_MODULE = "module "
_CODE = " #"
_COPIES = " x"
_MAX_DEPTH = 50
_MAX_NAMED = 10_000  # characters; each part of a module's name costs a look into folders
_MAX_TEXT = 500


@dataclass(frozen=True, slots=True)
class AppCode:
    """Code that references of one app may name.

    Attributes:
        handlers: The handlers of the app's workflows, by workflow id.
        packages: The top-level packages whose functions may be named.
    """

    handlers: Mapping[str, Callable[..., Any]]
    packages: Collection[str]


class Captive(Protocol):
    """Encoder of captured values that only the run knows: its context and its ``step``."""

    def encode(self, value: Any) -> JSON | None:
        """Return JSON for a value of the run, or None for any other."""

    def is_step(self, value: Any) -> bool:
        """Return whether a value is the run's ``step``."""


# --- from a function to a reference --------------------------------------------------------------------------------


@dataclass(slots=True)
class Describer:
    """Maker of references to the functions that one handler calls as steps."""

    workflow_id: str
    handler: Callable[..., Any]
    packages: Collection[str]
    captive: Captive
    secrets: Callable[[], bool] = never
    step_id: str = ""
    values: list[tuple[str, Any]] = field(default_factory=list)
    """Values that the call sends, with the names of arguments; captured values are in the order in which the code uses
    them, as a variable may get another name."""
    names: dict[int, str] = field(default_factory=dict)
    """Names of the functions among the values, by ``id``, that :func:`is_there` looks for."""
    has_order: bool = False
    """True if a function has captured several variables, whose order another body of it may change."""
    _stack: list[FunctionType] = field(default_factory=list)

    def call(self, step_id: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, JSON]:
        """Return a step function and its arguments in the form for its activity.

        Raises:
            CaptureError: The function, or a variable that it captured, cannot be sent.
            NestedStepError: It captured the run's ``step``.
        """
        self.step_id = step_id
        self.values.clear()
        self.names.clear()
        self.has_order = False
        self._stack.clear()
        call = {"function": self.function(function)}
        if arguments:
            call["arguments"] = [self._value(f"argument {i + 1}", value) for i, value in enumerate(arguments)]
        return call

    def function(self, function: Any) -> JSON:
        if isinstance(function, functools.partial):
            return {
                TAG: _FUNCTION,
                "partial": self.function(function.func),
                "arguments": [self._value(f"argument {i + 1}", value) for i, value in enumerate(function.args)],
                "keywords": {name: self._value(name, value) for name, value in function.keywords.items()},
            }
        if isinstance(function, MethodType):
            return self._method(function)
        if isinstance(function, FunctionType) and function in self._stack:
            return {TAG: _FUNCTION, "enclosing": len(self._stack) - 1 - self._stack.index(function)}
        if (nested := self._in_handler(function)) is not None:
            return self._nested(function, {"workflow": self.workflow_id}, nested)
        if (name := self._replaced(function)) is not None:
            return {TAG: _FUNCTION, "name": name}
        if isinstance(function, FunctionType):
            if (variable := self._beside(function)) is not None:
                code = fingerprint(function.__code__)
                return {TAG: _FUNCTION, "workflow": self.workflow_id, "variable": variable, "code": code}
            inner = unwrapped(function)
            if function is inner and (LAMBDA in function.__qualname__ or "<locals>" in function.__qualname__):
                return self._nested(function, *self._root_of(function))
            if "<locals>" not in function.__qualname__:
                return self._named(function)
            raise self._refused(
                f"is given the decorated function {function.__qualname__!r}, which is created while the body runs",
                "move it to module level",
                function,
            )
        raise self._refused(*_advice(function), None)

    def _method(self, method: MethodType) -> JSON:
        label = f"{type_label(_class_of(method))}.{method.__name__}"
        if (named := method_name(method)) is None:
            raise self._refused(
                f"is given the method {label!r}, which cannot be found by name in its class",
                "wrap it in a lambda",
                method,
            )
        name, owner = named
        if member(method.__self__, name, owner, self.packages) is None:
            what = "which Python calls itself" if is_dunder(name) else "which is not part of the app"
            raise self._refused(f"is given the method {label!r}, {what}", "wrap it in a lambda", method)
        reference: dict[str, JSON] = {TAG: _FUNCTION, "method": name, "self": self._owner(method)}
        if owner is not None:
            reference["of"] = self._value("self", owner)
        return reference

    def _replaced(self, function: Any) -> str | None:
        """Return the name of a function that cannot be found by its own name.

        A decorator has not set the name, or a test has put the function in place of another.
        """
        name = self._global_name(function)
        if name is None or _has_own_name(function, self.packages) or not _is_found(function, name, self.packages):
            return None
        module_name, _, qualname = name.partition(":")
        source = imported_from(sys.modules[module_name], qualname)
        return source if source is not None and _is_found(function, source, self.packages) else name

    def _global_name(self, function: Any) -> str | None:
        module = sys.modules.get(getattr(unwrapped(self.handler), "__module__", ""))
        name = global_name(function, module) if module is not None else None
        return None if module is None or name is None else f"{module.__name__}:{name}"

    def _owner(self, method: MethodType) -> JSON:
        self.values.append(("self", method.__self__))
        try:
            owner, secrets, packages = method.__self__, self.secrets, self.packages
            return encode(owner, self._other, secrets=secrets, packages=packages)
        except UnserializableError as err:
            raise self._refused(
                f"is given the method {method.__qualname__!r} of a {type_label(type(method.__self__))}, which cannot "
                f"be sent to an activity ({err})",
                f"if a variable of the module holds the object, write lambda: name.{method.__name__}(...); if not, "
                "create the object inside the step",
                method,
            ) from None

    def _beside(self, function: FunctionType) -> str | None:
        """Return the variable around the handler that holds a function, such as one defined beside it in a factory."""
        handler = unwrapped(self.handler)
        if handler is None or not _is_of(function, self.packages):
            return None
        return next((name for name, value in outer_values(handler) if value is function), None)

    def _named(self, function: Any) -> JSON:
        name = f"{function.__module__}:{function.__qualname__}"
        try:
            existing = find_function(name, self.packages)
        except StepCodeNotFoundError as err:
            raise self._refused(f"cannot be run elsewhere: {err}", self._remedy(function), function) from None
        if layer_codes(existing) != layer_codes(function):
            raise self._refused(
                f"is given a function whose name, {name!r}, now means another function",
                "give each function its own name",
                function,
            )
        reference: dict[str, JSON] = {TAG: _FUNCTION, "name": name}
        if (alias := self._global_name(function)) not in (None, name):
            reference["alias"] = alias
        return reference

    def _nested(self, function: FunctionType, root: dict[str, JSON], nested: NestedCode) -> JSON:
        if written := nonlocal_writes(function.__code__):
            names = ", ".join(repr(name) for name in written)
            raise self._refused(
                f"assigns {names} of the function around it, which would be lost: steps run in another process",
                "return the value from the step instead",
                function,
            )
        self._stack.append(function)
        reference: dict[str, JSON] = {TAG: _FUNCTION, **root, "path": nested.path, "code": fingerprint(nested.code)}
        if (copies := copies_of(nested.parents[0], nested.path, reference["code"])) > 1:
            reference["copies"] = copies
        if captured := self._captured(function, nested):
            reference["captured"] = captured
        if function.__defaults__:
            reference["defaults"] = [self._value("a default", value) for value in function.__defaults__]
        if function.__kwdefaults__:
            reference["kwdefaults"] = {k: self._value(k, value) for k, value in function.__kwdefaults__.items()}
        self._stack.pop()
        return reference

    def _in_handler(self, function: Any) -> NestedCode | None:
        """Return the code of a function that is written inside the handler and not decorated, or None."""
        if not isinstance(function, FunctionType) or hasattr(function, "__wrapped__"):
            return None
        handler = unwrapped(self.handler)
        return None if handler is None else _find(handler, function)

    def _root_of(self, function: FunctionType) -> tuple[dict[str, JSON], NestedCode]:
        outermost = function.__qualname__.partition(".<locals>")[0]
        name = f"{function.__module__}:{outermost}"
        if LAMBDA not in outermost:
            try:
                root = unwrapped(find_function(name, self.packages))
            except StepCodeNotFoundError as err:
                raise self._refused(f"cannot be run elsewhere: {err}", self._remedy(function), function) from None
            if root is not None and (nested := _find(root, function)):
                return {"root": name}, nested
        raise self._refused(
            f"is given {function.__qualname__!r}, which is written neither in the handler nor in a named function",
            "write it inside the handler, or as a def at module level",
            function,
        )

    def _captured(self, function: FunctionType, nested: NestedCode) -> dict[str, JSON]:
        values: dict[str, JSON] = {}
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        for name in free_in_order(function.__code__):
            if nested.is_outside(name):
                continue
            try:
                value = cells[name].cell_contents
            except ValueError:
                raise self._refused(
                    f"uses {name!r}, which has no value yet", "assign it before the step", function
                ) from None
            if self.captive.is_step(value):
                raise self._nested_step(first_text_argument(function.__code__, name), name, function)
            if (module := self._module(value, nested.modules(name))) is not None:
                self.values.append(("", value))
            values[name] = module or self._value(name, value, function)
        self.has_order = self.has_order or len(values) > 1
        return values

    def _module(self, value: Any, names: frozenset[str]) -> JSON | None:
        """Return a reference to a module that the enclosing function imports into its variable, or that is the app's.

        Any other module could stand for another value, whose methods the step calls.
        """
        if not isinstance(value, ModuleType):
            return None
        if value.__name__ not in names and package_of(value.__name__) not in self.packages:
            return None
        return {TAG: "module", "name": value.__name__}

    def _nested_step(self, inner: str | None, variable: str, function: FunctionType) -> NestedStepError:
        what = f"step {inner!r} is called inside" if inner else f"{variable!r} is used inside"
        return NestedStepError(
            f"{what} step {self.step_id!r} ({place(function.__code__)}); steps do not nest: "
            "call it in the handler's body, and pass on its result"
        )

    def _value(self, name: str, value: Any, function: FunctionType | None = None) -> JSON:
        self.values.append(("" if function else name, value))  # a captured variable may have another name
        try:
            secrets, packages = self.secrets, self.packages
            return encode(value, self._other, secrets=secrets, packages=packages, instead=_OPEN_INSIDE)
        except UnserializableError as err:
            verb = "captured" if function else "is given"
            at = f" ({place(function.__code__)})" if function else ""
            raise CaptureError(
                f"step {self.step_id!r} {verb} {name!r} ({type_label(type(value))}), which cannot be sent to an "
                f"activity: {err}{at}"
            ) from None

    def _other(self, value: Any) -> JSON | None:
        if (encoded := self.captive.encode(value)) is not None:
            return encoded
        if isinstance(value, FunctionType | MethodType | functools.partial):
            reference = self.function(value)
            if "enclosing" not in reference:
                self.names[id(value)] = named_function(*target_of(reference))
            return reference
        if (module := self._module(value, frozenset())) is not None:
            return module
        if isinstance(value, type) and "<locals>" not in value.__qualname__:
            name = name_of(value)
            find_type(name, self.packages)
            return {TAG: "type", "name": name}
        return None

    def _remedy(self, function: Callable[..., Any]) -> str:
        """Return the remedy for a function that cannot be found by its name."""
        if not _is_of(function, self.packages):
            return _allow(function)
        handler = unwrapped(self.handler)
        outermost = function.__qualname__.partition(".<locals>")[0]
        is_nested = "<locals>" in function.__qualname__
        if is_nested and handler is not None and not handler.__qualname__.startswith(outermost):
            return (
                f"if {outermost!r} is the handler of workflow {self.workflow_id!r}, its decorator hides it: add "
                "@functools.wraps(function) to what the decorator returns"
            )
        return (
            "if a decorator hides it, add @functools.wraps(function) to what the decorator returns; or pass a lambda "
            "that calls it"
        )

    def _refused(self, what: str, advice: str, function: Callable[..., Any] | None) -> CaptureError:
        """Return an error with the function's place, except for a library's function, whose place does not help."""
        where = position(function) if function is not None and is_written_in(function, self.packages) else ""
        at = f" ({where})" if where else ""
        return CaptureError(f"step {self.step_id!r} {what}; {advice}{at}")


def outer_values(handler: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the variables around a handler that it uses, with their values."""
    for name, cell in zip(handler.__code__.co_freevars, handler.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue


def _is_of(function: Any, packages: Collection[str]) -> bool:
    return str(getattr(function, "__module__", "")).partition(".")[0] in packages


def _find(root: FunctionType, function: FunctionType) -> NestedCode | None:
    if root.__module__ != function.__module__:
        return None
    return next((nested for nested in nested_codes(root.__code__) if nested.code == function.__code__), None)


def _class_of(method: MethodType) -> type:
    owner = method.__self__
    return owner if isinstance(owner, type) else type(owner)


def _advice(function: Any) -> tuple[str, str]:
    if isinstance(function, BuiltinFunctionType | type):
        return f"is given {function!r}, which is not a function of the app", "wrap it in a lambda"
    if hasattr(function, "__await__"):
        return "is given a coroutine", "pass the function itself, or a lambda: step.run('id', lambda: fetch(url))"
    if callable(function):
        return f"is given a {type_label(type(function))} object", "wrap its call in a lambda or a def"
    return f"is given {function!r}, which cannot be called", "pass a function, then its arguments"


def _allow(function: Any) -> str:
    package = package_of(str(getattr(function, "__module__", "")))
    return f"wrap it in a lambda, or allow its package: Client(..., step_packages=[{package!r}])"


# --- names in references -------------------------------------------------------------------------------------------


def target_of(reference: Any) -> tuple[str, str]:
    """Return the name of a reference's function, and the fingerprint of its code if the name is not sufficient.

    If several functions share the name and the code, the fingerprint includes their number: it changes when one of them
    was edited, although another with the same code still exists.
    """
    if "partial" in reference:
        return target_of(reference["partial"])
    if "name" in reference:
        return reference["name"], ""
    if "method" in reference:
        return f".{reference['method']}", ""
    root = reference.get("root") or f"workflow {reference.get('workflow')}"
    if "variable" in reference:
        return f"{root}: {_AROUND}{reference['variable']}", reference["code"]
    copies = f"{_COPIES}{reference['copies']}" if "copies" in reference else ""
    return f"{root}: {reference['path']}", f"{reference['code']}{copies}"


def without_code(call: Mapping[str, JSON]) -> JSON:
    """Return a call without the fingerprint of its function, whose code may be edited."""
    function = call["function"]
    if "partial" in function:
        inner = without_code({"function": function["partial"]})["function"]
        return {**call, "function": {**function, "partial": inner}}
    return {**call, "function": {name: part for name, part in function.items() if name not in ("code", "copies")}}


def named_function(target: str, code: str) -> str:
    """Return the name by which :func:`is_there` looks for a function; see :func:`target_of`."""
    return f"{_CALLABLE}{target}{_CODE}{code}" if code else f"{_CALLABLE}{target}"


def is_same_name(named: str, other: str) -> bool:
    """Return whether two names are of the same function, whatever its code."""
    return named.partition(_CODE)[0] == other.partition(_CODE)[0]


def is_same_code(named: str, other: str) -> bool:
    """Return whether two names or fingerprints are of the same function with the same code, whatever their number."""
    return named.partition(_COPIES)[0] == other.partition(_COPIES)[0]


def is_there(
    named: str, exactly: bool, handler: Callable[..., Any], workflow_id: str, packages: Collection[str]
) -> bool:
    """Return whether this process has a class, a function or a module.

    Args:
        named: One of the names in :attr:`Describer.named`, or a result of :func:`named_function`.
        exactly: Whether a function counts only if its code is unchanged.
        handler: The handler of the workflow.
        workflow_id: The workflow.
        packages: The app's packages.
    """
    if len(named) > _MAX_NAMED:
        return False
    try:
        if named.startswith(_MODULE):
            return _has_module(named.removeprefix(_MODULE), packages)
        if not named.startswith(_CALLABLE):
            return _has_class(named, packages)
        target, _, code = named.removeprefix(_CALLABLE).partition(_CODE)
        return _has_function(target, code, exactly, handler, workflow_id, packages)
    except Exception:  # anybody can write a history, and importing a module of the app may raise anything
        return False


def _has_module(name: str, packages: Collection[str]) -> bool:
    """Return whether a module exists, loaded or not: a module may be loaded only when a handler runs.

    No code of libraries runs: any of a library's modules counts if the library is installed.
    """
    if loaded_module(name) is not None:
        return True
    if package_of(name) in packages:
        return load_module(name, packages) is not None
    return importlib.util.find_spec(package_of(name)) is not None


def _has_class(named: str, packages: Collection[str]) -> bool:
    """Return whether a class has this name, and has not been given another one."""
    for find in (find_type, find_data_class):
        with suppress(UnserializableError, ValueError, TypeError, LookupError):
            name = json.loads(named) if named.startswith("{") else named
            return bool(name_of(find(name, packages)) == name)
    return False


def _has_function(
    target: str, code: str, exactly: bool, handler: Callable[..., Any], workflow_id: str, packages: Collection[str]
) -> bool:
    if not code:  # a name under which a module imports a function does not count if the function has its own name
        return target.startswith(".") or _goes_by(find_function(target, packages), target, packages)
    name, _, path = target.partition(": ")
    root = unwrapped(handler if name == f"workflow {workflow_id}" else find_function(name, packages))
    if root is None:
        return False
    if path.startswith(_AROUND):
        outer = find_outer(root, path.removeprefix(_AROUND), code, packages)
        return outer is not None and not (exactly and fingerprint(outer.__code__) != code)
    code, _, copies = code.partition(_COPIES)
    if exactly:
        return copies_of(root.__code__, path, code) >= (int(copies) if copies.isdecimal() else 1)
    return find_nested(root, path, code) is not None


# --- from a reference to a function --------------------------------------------------------------------------------


@dataclass(slots=True)
class Resolver:
    """Maker of functions from references, on the worker."""

    app: AppCode
    captive: Callable[[dict[str, JSON]], Any]
    _stack: list[Callable[[], FunctionType]] = field(default_factory=list)
    _depth: int = 0

    def call(self, call: Mapping[str, JSON]) -> tuple[Callable[..., Any], list[Any]]:
        """Return the function and its arguments.

        Raises:
            StepCodeNotFoundError: This worker's code does not have the function, or a class of a captured value.
        """
        try:
            function = self._function(call["function"])
            return function, [self._value(value) for value in call.get("arguments", ())]
        except TypeNotFoundError as err:
            raise StepCodeNotFoundError(str(err)) from err
        except SteporalError:
            raise
        except Exception as err:
            text = f"{type(err).__name__}: {str(err)[:_MAX_TEXT]}"
            raise StepCodeNotFoundError(f"a call of a step is not in Steporal's format: {text}") from None

    def _value(self, data: JSON) -> Any:
        return decode(data, self._other, self.app.packages)

    def _captured(self, variable: str, data: JSON, nested: NestedCode) -> Any:
        """Return a captured value, which may be a module that the enclosing function imports into the variable."""
        name = data["name"] if type(data) is dict and data.get(TAG) == "module" else None
        if type(name) is str and name in nested.modules(variable):
            return load_module(name, {package_of(name)})
        return self._value(data)

    def _other(self, data: dict[str, JSON]) -> Any:
        if data[TAG] == _FUNCTION:
            return self._function(data)
        if data[TAG] == "module":
            return self._module(data["name"])
        if data[TAG] == "type":
            return find_type(data["name"], self.app.packages)
        return self.captive(data)

    def _function(self, data: Mapping[str, JSON]) -> Callable[..., Any]:
        if self._depth >= _MAX_DEPTH:
            raise StepCodeNotFoundError(f"functions are nested more than {_MAX_DEPTH} levels deep")
        self._depth += 1
        function = self._resolved(data)
        self._depth -= 1
        return function

    def _resolved(self, data: Mapping[str, JSON]) -> Callable[..., Any]:
        if "name" in data:
            function = find_function(data["name"], self.app.packages)
            return _replaced(function, data["alias"], self.app.packages) if "alias" in data else function
        if "partial" in data:
            arguments = [self._value(value) for value in data["arguments"]]
            keywords = {name: self._value(value) for name, value in data["keywords"].items()}
            return functools.partial(self._function(data["partial"]), *arguments, **keywords)
        if "method" in data:
            owner = self._value(data["self"])
            kind = self._value(data["of"]) if "of" in data else None
            method = member(owner, data["method"], kind, self.app.packages)
            if method is None:
                label = type_label(owner if is_class(owner) else type(owner))
                raise StepCodeNotFoundError(f"{label} has no method {shown(data['method'])} of the app")
            return cast("Callable[..., Any]", method)
        if "enclosing" in data:
            depth: int = data["enclosing"]
            if type(depth) is not int or not 0 <= depth < len(self._stack):
                raise StepCodeNotFoundError(f"no function is {shown(depth)} levels around a captured one")
            return self._stack[-1 - depth]()
        if "variable" in data:
            return self._outer(data)
        return self._nested(data)

    def _outer(self, data: Mapping[str, JSON]) -> Callable[..., Any]:
        """Return a function beside a handler: this worker's own, with the variables of its factory."""
        name, root = self._root(data)
        outer = find_outer(root, data["variable"], data["code"], self.app.packages)
        if outer is None:
            raise StepCodeNotFoundError(
                f"{name} has no function {shown(data['variable'])} around it with the code that the step was called "
                f"with ({position(root)}); this worker runs another version of the code"
            )
        return outer

    def _root(self, data: Mapping[str, JSON]) -> tuple[str, FunctionType]:
        if "workflow" in data:
            name = f"workflow {shown(data['workflow'])}"
            root = self.app.handlers.get(data["workflow"])
        else:
            name = f"function {shown(data['root'])}"
            root = find_function(data["root"], self.app.packages)
        inner = unwrapped(root) if root is not None else None
        if inner is None:
            raise StepCodeNotFoundError(
                f"this worker does not define {name}; a worker with the code that called the step does"
            )
        return name, inner

    def _nested(self, data: Mapping[str, JSON]) -> FunctionType:
        name, root = self._root(data)
        nested = find_nested(root, data["path"], data["code"])
        if nested is None:
            raise StepCodeNotFoundError(
                f"{name} has no {shown(data['path'])} with the code that the step was called with ({position(root)}); "
                "this worker runs another version of the code"
            )
        code = nested.code
        outer = dict(zip(root.__code__.co_freevars, root.__closure__ or (), strict=True))
        cells = {
            name: outer[name] if nested.is_outside(name) and name in outer else CellType() for name in code.co_freevars
        }
        function = FunctionType(
            code, root.__globals__, code.co_name, None, tuple(cells[name] for name in code.co_freevars)
        )
        self._stack.append(lambda: function)
        captured = data.get("captured", {})
        for variable in code.co_freevars:
            if not nested.is_outside(variable):
                if variable not in captured:
                    raise StepCodeNotFoundError(
                        f"{shown(data['path'])} of {name} uses {variable!r}, which the run did not send; "
                        "this worker runs another version of the code"
                    )
                cells[variable].cell_contents = self._captured(variable, captured[variable], nested)
        if "defaults" in data:
            function.__defaults__ = tuple(self._value(value) for value in data["defaults"])
        if "kwdefaults" in data:
            function.__kwdefaults__ = {k: self._value(value) for k, value in data["kwdefaults"].items()}
        self._stack.pop()
        return function

    def _module(self, name: str) -> ModuleType:
        if package_of(name) not in self.app.packages:
            raise StepCodeNotFoundError(
                f"module {shown(name)} is not part of the app, and the workflow does not import it into the variable"
            )
        return load_module(name, self.app.packages)


def find_outer(handler: FunctionType, variable: str, code: str, packages: Collection[str]) -> FunctionType | None:
    """Return the app's function in a variable around a handler: by its name, or, for a lambda, by its fingerprint."""
    value = dict(outer_values(handler)).get(variable)
    if not isinstance(value, FunctionType) or not _is_of(value, packages):
        return None
    return None if value.__name__ == LAMBDA and fingerprint(value.__code__) != code else value


def find_nested(root: FunctionType, path: str, code: str) -> NestedCode | None:
    """Return the code at a path below ``root``: by its name if that is unique, otherwise by its fingerprint."""
    candidates = [nested for nested in nested_codes(root.__code__) if nested.path == path]
    exact = next((nested for nested in candidates if fingerprint(nested.code) == code), None)
    if exact is not None or LAMBDA in path or len(candidates) != 1:
        return exact
    return candidates[0]


def copies_of(root: CodeType, path: str, code: str) -> int:
    """Return the number of functions with a fingerprint at a path below ``root``."""
    return sum(nested.path == path and fingerprint(nested.code) == code for nested in nested_codes(root))


def find_function(name: str, packages: Collection[str]) -> Callable[..., Any]:
    """Return the module-level function or method ``module:qualified.name`` of the app.

    Raises:
        StepCodeNotFoundError: The function does not exist, or is not the app's own.
    """
    module_name, _, qualname = name.partition(":")
    if package_of(module_name) not in packages:
        raise StepCodeNotFoundError(
            f"{shown(name)} is not a function of the app, whose packages are {', '.join(sorted(map(repr, packages)))}"
        )
    try:
        module = load_module(module_name, packages)
    except TypeNotFoundError as err:
        raise StepCodeNotFoundError(str(err)) from err
    function = None if any(map(is_dunder, qualname.split("."))) else _bound_member(module, qualname)
    if not callable(function):
        raise StepCodeNotFoundError(f"module {shown(module_name)} does not define a function {shown(qualname)}")
    # The name must be the function's own: `app.orders:os.system` and `from os import system` are not the app's.
    if not _is_own(function, name) and _is_of_function(module, qualname, packages):
        return cast("Callable[..., Any]", function)  # a test has replaced it
    if not _is_own(function, name) or unwrapped(function) is None:
        raise StepCodeNotFoundError(f"module {shown(module_name)} does not define a function {shown(qualname)}")
    return cast("Callable[..., Any]", function)


def _bound_member(module: ModuleType, qualname: str) -> Any:
    """Return the member of a module and its classes with a name: a function, or a class method bound to its class."""
    value = static_member(module, qualname)
    if type(value) is staticmethod:
        return value.__func__
    if type(value) is classmethod:
        owner = static_member(module, qualname.rpartition(".")[0])
        return MethodType(value.__func__, owner) if is_class(owner) else None
    return value


def _is_own(thing: Any, name: str) -> bool:
    """Return whether a function or class was written with a name."""
    return f"{_declared(thing, '__module__')}:{_declared(thing, '__qualname__')}" == name


def _is_found(function: Any, name: str, packages: Collection[str]) -> bool:
    try:
        return find_function(name, packages) is function
    except StepCodeNotFoundError:
        return False


def _has_own_name(function: Any, packages: Collection[str]) -> bool:
    """Return whether a function is found by the name that it was written with, wherever it was imported."""
    own = f"{_declared(function, '__module__')}:{_declared(function, '__qualname__')}"
    return _is_found(function, own, packages)


def _goes_by(function: Any, name: str, packages: Collection[str]) -> bool:
    """Return whether a function was written with a name, or cannot be found by any name of its own."""
    return _is_own(function, name) or not _has_own_name(function, packages)


def _declared(thing: Any, attribute: str) -> Any:
    """Return an attribute of a function, a class, or a decorator's object, without running the object's code."""
    if type(thing) in (FunctionType, MethodType) or is_class(thing):
        return getattr(thing, attribute, None)
    return inspect.getattr_static(thing, attribute, None)


def _is_of_function(module: ModuleType, qualname: str, packages: Collection[str]) -> bool:
    """Return whether a module's source defines or imports a function of the app under a name."""
    if defines(module, qualname):
        return True
    source = imported_from(module, qualname)
    try:
        return source is not None and find_function(source, packages) is not None
    except StepCodeNotFoundError:
        return False


def _replaced(function: Callable[..., Any], alias: str, packages: Collection[str]) -> Callable[..., Any]:
    """Return a test's replacement of a function in the module that imported it; without one, the function."""
    module_name, _, name = alias.partition(":")
    module = sys.modules.get(module_name)
    if module is None or module_name.partition(".")[0] not in packages:
        return function
    value, source = vars(module).get(name, function), imported_from(module, name)
    if value is function or source is None or not callable(value):
        return function
    try:
        return cast("Callable[..., Any]", value) if find_function(source, packages) is function else function
    except StepCodeNotFoundError:
        return function
