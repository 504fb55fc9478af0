"""Watch over the calls that a body makes while it runs.

The modules of an app are loaded once, as in any Python program, and a body runs the functions that are in them. While
a thread executes a workflow task, it watches calls: if code of the app calls something that would give another result
in a replay (``remedies.NAMES``), the call raises `ForbiddenCallError`. Libraries may do what they like internally, and
so may steps, which run in other threads.

Since Python 3.12, ``sys.monitoring`` reports events of single functions: in the app's code, calls of built-in
functions; for each forbidden Python function, its start. Everything else runs at full speed. Python 3.11 can only
report all calls of a thread to a profile function, which slows each of them down. So there, only calls inside
``in_body`` are watched: the tasks and callbacks of a body, and not the SDK and Steporal around them.
"""

from __future__ import annotations

import atexit
import contextlib
import dis
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from types import BuiltinFunctionType, CodeType, FrameType
from typing import Any, TypeVar

from temporalio import workflow

from ..closures.own_code import OwnCode
from .forbidden import Forbidden, forbidden
from .remedies import remedy

T = TypeVar("T")

_OBSERVERS = frozenset({"logging", "structlog", "loguru", "sentry_sdk", "opentelemetry", "warnings", "importlib"})
"""Packages whose calls into the app do not affect a body: handlers of log records, module-level code."""

_BETWEEN = frozenset({"collections", "os", "contextlib", "pydantic", "functools", "dataclasses"})
"""Packages whose code calls on behalf of the app: ``os.environ.get``, the default factory of a model's field."""

_FOR_ITSELF = "pydantic.plugin"
"""Part of those packages that calls for its own purposes: pydantic reads an environment variable whenever it builds a
class or a ``TypeAdapter``, to find its plugins."""

_CALL_EX = dis.opmap["CALL_FUNCTION_EX"]
_GLOBAL_WRITES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_WRITE_CODES = frozenset(dis.opmap[name] for name in _GLOBAL_WRITES)


class ForbiddenCallError(workflow.NondeterminismError):
    """A body has called a function that gives another result when Temporal replays the run.

    Attributes:
        qualified_name: The full name of the function, such as ``datetime.datetime.now``.
    """

    def __init__(self, qualified_name: str) -> None:
        super().__init__(f"a body calls {qualified_name}")
        self.qualified_name = qualified_name


class GlobalChangedError(workflow.NondeterminismError):
    """A body has assigned a global variable, which the worker's other runs share.

    Attributes:
        variable: The variable's name.
        where: The function that assigns it, as ``file:line``.
    """

    def __init__(self, variable: str, where: str) -> None:
        super().__init__(f"a body assigns the global variable {variable!r}")
        self.variable = variable
        self.where = where


@dataclass(slots=True)
class Watch:
    """Observations in one workflow task of a run.

    Attributes:
        own_code: The code of the app.
        error: The first forbidden call or assignment, even if the body has caught the error.
    """

    own_code: OwnCode
    error: workflow.NondeterminismError | None = None
    profile: Callable[[FrameType, str, Any], None] | None = None
    """Profile function for Python 3.11."""
    _globals: list[tuple[dict[str, Any], str, Any, CodeType]] = field(default_factory=list)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Watch the calls that this thread makes inside :func:`in_body`."""
        before, _thread.watch = _thread.watch, self
        _watcher.start(self)
        try:
            yield
        finally:
            _thread.watch = before
            self._compare_globals()

    def refuse(self, name: str, caller: FrameType | None) -> None:
        """Raise an error if the caller of a forbidden function is the body.

        Args:
            name: The function's full name.
            caller: The calling frame.
        """
        if not workflow.unsafe.is_sandbox_unrestricted() and self._is_called_by_body(caller):
            error = ForbiddenCallError(name)
            self.error = self.error or error
            raise error

    def _is_called_by_body(self, caller: FrameType | None) -> bool:
        while caller is not None and not self.owns(caller.f_code, caller.f_globals):
            if _package(caller) not in _BETWEEN or _module(caller).startswith(_FOR_ITSELF):
                return False
            caller = caller.f_back
        while caller is not None and _package(caller) != "steporal":
            if caller.f_code.co_name == "__del__" or _package(caller) in _OBSERVERS:
                return False
            before, caller = caller, caller.f_back
            if caller is not None and _package(caller) == "temporalio":
                # Temporal's SDK calls interceptors and payload converters of the app; Steporal calls bodies.
                return not self.owns(before.f_code, before.f_globals)
        return True

    def owns(self, code: CodeType, variables: dict[str, Any]) -> bool:
        """Return whether code is the app's own."""
        return self.own_code.has_code(code, str(variables.get("__name__")))

    # --- global variables ------------------------------------------------------------------------------------------

    def remember(self, code: CodeType, variables: dict[str, Any]) -> None:
        """Remember the global variables that a function of the app may assign, before it runs."""
        known = {(id(globals_), name) for globals_, name, _, _ in self._globals}
        for name in global_writes(code):
            if (id(variables), name) not in known:
                self._globals.append((variables, name, variables.get(name), code))

    def _compare_globals(self) -> None:
        for variables, name, before, code in self._globals:
            # A variable without a value is a cache that the first use fills.
            if before is not None and variables.get(name) is not before and self.error is None:
                self.error = GlobalChangedError(name, f"{code.co_filename}:{code.co_firstlineno}")
        self._globals.clear()


class _Thread(threading.local):
    watch: Watch | None = None


_thread = _Thread()


def in_body(function: Callable[..., T], *args: Any) -> T:
    """Call a function as part of the body that this thread executes, and watch its calls."""
    if (watch := _thread.watch) is None or watch.profile is None:
        return function(*args)
    before = sys.getprofile()
    _set_profile(watch.profile)
    try:
        return function(*args)
    finally:
        _set_profile(before)


def aside(function: Callable[..., T], *args: Any) -> T:
    """Call a function of Steporal that the body has called, without watching its calls, which would slow it down."""
    profile = sys.getprofile()
    if profile is None or (watch := _thread.watch) is None or profile is not watch.profile:
        return function(*args)
    _set_profile(None)
    try:
        return function(*args)
    finally:
        _set_profile(profile)


_TRIES = 1_000


def _set_profile(function: Callable[[FrameType, Any, Any], object] | None) -> None:
    """Set this thread's profile function.

    Python 3.11 raises a `RuntimeError` while another thread sets its own, which lasts as long as an audit hook or a
    finalizer takes. Without the retries, the body would fail.
    """
    for _ in range(_TRIES - 1):
        try:
            return sys.setprofile(function)
        except RuntimeError:
            time.sleep(0)  # lets the other thread continue
    return sys.setprofile(function)


def global_writes(code: CodeType) -> tuple[str, ...]:
    """Return the names of the global variables that a function assigns or deletes."""
    return tuple(dict.fromkeys(i.argval for i in dis.get_instructions(code) if i.opname in _GLOBAL_WRITES))


def _writes_globals(code: CodeType) -> bool:
    return not _WRITE_CODES.isdisjoint(code.co_code[::2]) and code.co_name != "<module>"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _package(frame: FrameType) -> str:
    return _module(frame).partition(".")[0]


@cache
def _depends_on_arguments(name: str) -> bool:
    return remedy(name, arguments=9) is None


def _refuse_builtin(watch: Watch, name: str, caller: FrameType, offset: int) -> None:
    """Refuse a built-in function, unless its arguments make it deterministic, as in ``time.localtime(0)``."""
    if _depends_on_arguments(name):
        instructions = caller.f_code.co_code
        if instructions[offset] == _CALL_EX or remedy(name, arguments=instructions[offset + 1]) is None:
            return
    watch.refuse(name, caller)


def _refuse_function(watch: Watch, frame: FrameType) -> None:
    """Refuse a Python function that has just started in ``frame``, if it is forbidden."""
    code = frame.f_code
    for target in forbidden().codes.get(id(code), ()):
        if not target.is_called_on(lambda: frame.f_locals[code.co_varnames[0]]):
            continue
        if _depends_on_arguments(target.name) and any(
            frame.f_locals.get(name) is not None for name in code.co_varnames[1 : code.co_argcount]
        ):
            continue
        watch.refuse(target.name, frame.f_back)


# --- Python 3.11 ---------------------------------------------------------------------------------------------------


class _Profiler:
    """Watch of a thread by its profile function."""

    _MAX_CODES = 50_000

    def __init__(self) -> None:
        self._codes: dict[int, tuple[CodeType, bool]] = {}
        """Code that was called, by identity, and whether it assigns global variables."""

    def start(self, watch: Watch) -> None:
        """Prepare to watch a thread."""
        watch.profile = self._profile_of(watch)

    def _profile_of(self, watch: Watch) -> Callable[[FrameType, str, Any], None]:
        index, known = forbidden(), self._codes
        builtins, codes, loaded = index.builtins, index.codes, len(sys.modules)
        if len(known) > self._MAX_CODES:
            known.clear()

        # Python drops a profile function that raises; by then the watch has its error, and the task fails.
        def profile(frame: FrameType, event: str, arg: Any) -> None:
            nonlocal builtins, codes, loaded
            if event == "c_call":
                if arg in builtins:
                    _refuse_builtin(watch, builtins[arg], frame, frame.f_lasti)
            elif event == "call":
                code = frame.f_code
                kind = known.get(id(code))
                if kind is None:
                    kind = known[id(code)] = (code, _writes_globals(code))
                    if len(sys.modules) != loaded:  # the body has imported a module
                        index, loaded = forbidden(), len(sys.modules)
                        builtins, codes = index.builtins, index.codes
                if id(code) in codes:
                    _refuse_function(watch, frame)
                elif kind[1] and watch.owns(code, frame.f_globals):
                    watch.remember(code, frame.f_globals)

        return profile


# --- since Python 3.12 ---------------------------------------------------------------------------------------------


class _Monitoring:
    """Watch of the app's code by ``sys.monitoring``, in all threads; events of threads without a watch are ignored."""

    _TOOL_IDS = (4, 3)  # not those of debuggers, coverage, profilers and optimizers

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own: set[OwnCode] = set()
        self._index = Forbidden()
        self._loaded = 0
        self._tool: int | None = None

    def start(self, watch: Watch) -> None:
        """Watch the code of an app, with everything that the process has loaded so far."""
        own_code = watch.own_code
        if self._loaded == len(sys.modules) and own_code in self._own:
            return
        with self._lock:
            if self._tool is None:
                self._tool = self._begin()
            self._own = {*self._own, own_code}
            self._loaded = len(sys.modules)
            self._index = forbidden()
            _monitoring.restart_events()  # for code whose events were disabled before

    def _begin(self) -> int:
        tool = next((tool for tool in self._TOOL_IDS if _monitoring.get_tool(tool) is None), None)
        if tool is None:
            raise RuntimeError(
                f"sys.monitoring has no free tool id for steporal, which uses one of {self._TOOL_IDS}; "
                "start the worker without the profilers that use them"
            )
        events = _monitoring.events
        _monitoring.use_tool_id(tool, "steporal")
        _monitoring.register_callback(tool, events.PY_START, self._started)
        _monitoring.register_callback(tool, events.PY_RESUME, self._resumed)
        _monitoring.register_callback(tool, events.CALL, self._called)
        _monitoring.set_events(tool, events.PY_START)
        atexit.register(self._end, tool)  # functions that run later would find this module's names deleted
        return tool

    @staticmethod
    def _end(tool: int) -> None:
        for event in (_monitoring.events.PY_START, _monitoring.events.PY_RESUME, _monitoring.events.CALL):
            _monitoring.register_callback(tool, event, None)
        _monitoring.set_events(tool, 0)

    def _started(self, code: CodeType, offset: int) -> Any:
        watch = _thread.watch
        if id(code) in self._index.codes:
            if watch is not None:
                _refuse_function(watch, sys._getframe(1))
            return None
        variables = sys._getframe(1).f_globals
        if not any(own.has_code(code, str(variables.get("__name__"))) for own in self._own):
            return _monitoring.DISABLE
        events, writes = _monitoring.events, _writes_globals(code)
        _monitoring.set_local_events(self._tool, code, events.CALL | (events.PY_RESUME if writes else 0))
        if not writes:
            return _monitoring.DISABLE
        if watch is not None:
            watch.remember(code, variables)
        return None

    def _resumed(self, code: CodeType, offset: int) -> Any:
        """Remember the global variables of a coroutine that assigns some, when it resumes."""
        if (watch := _thread.watch) is not None:
            watch.remember(code, sys._getframe(1).f_globals)

    def _called(self, code: CodeType, offset: int, called: Any, first: Any) -> Any:
        if type(called) is not BuiltinFunctionType or called not in self._index.builtins:
            return _monitoring.DISABLE  # the call site, not the function: a site mostly calls the same function
        if (watch := _thread.watch) is not None:
            _refuse_builtin(watch, self._index.builtins[called], sys._getframe(1), offset)
        return None


_monitoring: Any = getattr(sys, "monitoring", None)
_watcher: _Profiler | _Monitoring = _Profiler() if _monitoring is None else _Monitoring()
