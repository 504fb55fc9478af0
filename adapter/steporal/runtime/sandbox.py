"""Temporal's sandbox, made cheap: only the modules that define workflows are loaded again in it.

Temporal's own checks stay on, so that ``datetime.now()`` in a body fails. What is left out is what costs: the stock
sandbox imports everything anew for each run, and compiles and enters a small script for each activation and for each
payload.

It touches the SDK's internals, as few modules do (AGENTS.md names them): so the project takes one minor version of it.
"""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import temporalio.workflow
from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxMatcher, SandboxRestrictions
from temporalio.worker.workflow_sandbox._importer import (
    Importer,
    _thread_local_import,
    _thread_local_sys_modules,
    _ThreadLocalOverride,
)
from temporalio.worker.workflow_sandbox._restrictions import RestrictionContext, _RestrictedProxy

from .compiled import is_compiled, loaded_again
from .reloading import AllExcept, ModuleCode


class SteporalWorkflowRunner(WorkflowRunner):
    """Runs our workflows in the cheap sandbox, and all others as the worker would without us.

    Args:
        modules: The modules that define workflows.
        others: The worker's own runner.
    """

    def __init__(self, modules: Iterable[str], others: WorkflowRunner) -> None:
        reloaded = AllExcept(modules)
        self._restrictions = replace(
            SandboxRestrictions.default,
            passthrough_modules=reloaded,
            invalid_module_members=_without_wait(SandboxRestrictions.default.invalid_module_members),
        )
        self._module_code = ModuleCode(reloaded.reloaded)
        self._others = others

    def prepare_workflow(self, defn: temporalio.workflow._Definition) -> None:
        """See base class."""
        if is_compiled(defn.cls):
            with _Sandbox(self._restrictions):
                loaded_again(defn.cls, self._module_code.load)
        else:
            self._others.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """See base class."""
        if is_compiled(det.defn.cls):
            return _Instance(det, _Sandbox(self._restrictions), self._module_code)
        return self._others.create_instance(det)

    def set_worker_level_failure_exception_types(self, types: Any) -> None:
        """See base class."""
        self._others.set_worker_level_failure_exception_types(types)


def _without_wait(members: SandboxMatcher) -> SandboxMatcher:
    """The SDK's restrictions but for ``asyncio.wait``, whose sets are in order in our runs (``ordered_tasks``)."""
    of_asyncio = members.children["asyncio"]
    allowed = {name: matcher for name, matcher in of_asyncio.children.items() if name not in ("wait", "as_completed")}
    return replace(members, children={**members.children, "asyncio": replace(of_asyncio, children=allowed)})


class _Sandbox:
    """One sandbox: its modules, and its restrictions while code runs in it.

    Entering it does what ``Importer.applied`` does, to the same objects and without a stack of context managers; a run
    of three steps enters six times.
    """

    def __init__(self, restrictions: SandboxRestrictions) -> None:
        self._context = RestrictionContext()
        self._importer = Importer(restrictions, self._context)
        self._overrides: list[tuple[_ThreadLocalOverride[Any], Any, str, Any]] = [
            (_thread_local_sys_modules, sys, "modules", self._importer.new_modules),
            (_thread_local_import, builtins, "__import__", self._importer.import_func),
            *((override, builtins, name, _FAST.get(name, new)) for name, override, new in self._restricted_builtins()),
        ]
        self.thread_id: int | None = None

    def _restricted_builtins(self) -> list[tuple[str, _ThreadLocalOverride[Any], Any]]:
        return self._importer.restricted_builtins  # type: ignore[return-value]

    def __enter__(self) -> None:
        self.thread_id = threading.get_ident()
        temporalio.workflow.unsafe._set_in_sandbox(True)
        Importer._thread_local_current.importer = self._importer
        for override, owner, name, value in self._overrides:
            with override.applied_counter_lock:
                override.applied_counter += 1
                if getattr(owner, name) is not override:
                    setattr(owner, name, override)
            override.thread_local.data = value

    def __exit__(self, *error: object) -> None:
        self.forbid(False)
        for override, owner, name, _ in self._overrides:
            del override.thread_local.data
            with override.applied_counter_lock:
                override.applied_counter -= 1
                if override.applied_counter == 0:
                    setattr(owner, name, override.orig)
        Importer._thread_local_current.importer = None
        temporalio.workflow.unsafe._set_in_sandbox(False)
        self.thread_id = None

    def forbid(self, forbidden: bool) -> None:
        """Whether to forbid what a body may not do, and a module may while it is loaded."""
        self._context.is_runtime = forbidden
        self._context.in_activation = forbidden


def _unwrapping(check: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """``isinstance`` or ``issubclass`` that knows the sandbox's proxies; the SDK's takes three times as long."""

    def unwrapped(a: Any, b: Any) -> bool:
        if type(a) is _RestrictedProxy or type(b) is _RestrictedProxy:
            a, b = RestrictionContext.unwrap_if_proxied(a), RestrictionContext.unwrap_if_proxied(b)
        return check(a, b)

    return unwrapped


_FAST = {"isinstance": _unwrapping(isinstance), "issubclass": _unwrapping(issubclass)}


class _Instance(WorkflowInstance):
    """A run in its sandbox."""

    def __init__(self, details: WorkflowInstanceDetails, sandbox: _Sandbox, module_code: ModuleCode) -> None:
        self._info = details.info
        self._sandbox = sandbox
        with sandbox:
            definition = _definition(details.defn, loaded_again(details.defn.cls, module_code.load))
            sandbox.forbid(True)
            self._instance: Any = _unsandboxed.create_instance(replace(details, defn=definition))

    def activate(self, act: Any) -> Any:
        with self._sandbox:
            self._sandbox.forbid(True)
            try:
                return self._instance.activate(act)
            except RuntimeError:
                if not self._instance._tasks or not act.jobs[0].HasField("remove_from_cache"):
                    raise
                self._end_what_is_left()
                return self._instance.activate(act)

    def _end_what_is_left(self) -> None:
        """End what has not ended when the run was to be forgotten: the SDK would try for ever, and the run stand still.

        It interrupts a workflow task that computes for two seconds wherever that is. In one of ten times a task of the
        run is left that nobody wakes any more.
        """
        for task in list(self._instance._tasks):
            with suppress(Exception):
                task.get_coro().close()
        self._instance._tasks.clear()

    def get_info(self) -> temporalio.workflow.Info:
        return self._info

    def get_thread_id(self) -> int | None:
        return self._sandbox.thread_id

    def get_serialization_context(self, command_info: Any) -> Any:
        # Looks up ids that the instance knows; nothing of the user's runs, so the sandbox need not be entered.
        return self._instance.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: Any) -> Any:
        return self._instance.get_external_store_context(command_info)


_unsandboxed = UnsandboxedWorkflowRunner()


def _definition(outside: temporalio.workflow._Definition, workflow_class: type) -> temporalio.workflow._Definition:
    """Temporal's definition of a class, taken over from its base class; to make it anew takes a millisecond."""
    return replace(outside, cls=workflow_class)


def beside_ours(runner: WorkflowRunner | None) -> WorkflowRunner:
    """The worker's own runner; where it is the stock sandbox, what we are made of passes through it."""
    runner = runner or SandboxedWorkflowRunner()
    if isinstance(runner, SandboxedWorkflowRunner):
        return replace(runner, restrictions=runner.restrictions.with_passthrough_modules("steporal", "cronsim", "ulid"))
    return runner
