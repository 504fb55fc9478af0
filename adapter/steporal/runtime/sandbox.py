"""Temporal's sandbox, made cheap: only the modules that define workflows are loaded again in it.

Temporal's own checks stay on, so that ``datetime.now()`` in a body fails. What is left out is what costs: the stock
sandbox imports everything anew for each run, and compiles and enters a small script for each activation and for each
payload. A module's code is taken from memory, so that a file that is edited under a running worker changes nothing in
it: the body and the steps of a run are always of one version.

This module is the only one that touches the sandbox's internals; ``tests/adapter/runtime/test_sandbox_symbols.py`` has
a test for each.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import module_from_spec
from types import CodeType
from typing import Any

import temporalio.workflow
from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.worker.workflow_sandbox._importer import Importer
from temporalio.worker.workflow_sandbox._restrictions import RestrictionContext

from .compiled import is_compiled, loaded_again


class AllExcept(set[str]):
    """A set of module names that has every name but these, and but the packages that these are in.

    A package has to be loaded again with a module in it, or the module would be bound to the real package.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        super().__init__()
        self.reloaded = frozenset(
            ".".join(parts[: i + 1]) for parts in (m.split(".") for m in modules) for i in range(len(parts))
        )

    def __contains__(self, name: object) -> bool:
        return name not in self.reloaded


class ModuleCode:
    """The code of modules, read once, to load them again from memory."""

    def __init__(self) -> None:
        self._code: dict[str, CodeType | None] = {}

    def load(self, name: str) -> None:
        """Load a module again, within the sandbox's ``sys.modules``."""
        if name in sys.modules:
            return
        parent, _, child = name.rpartition(".")
        if parent:
            self.load(parent)
            if name in sys.modules:
                return
        spec = importlib.util.find_spec(name)
        code = self._code_of(name, spec.loader if spec else None)
        if spec is None or code is None:
            importlib.import_module(name)
            return
        module = module_from_spec(spec)
        sys.modules[name] = module
        try:
            exec(code, module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
        if parent:
            setattr(sys.modules[parent], child, module)

    def _code_of(self, name: str, loader: Any) -> CodeType | None:
        if name not in self._code:
            get_code = getattr(loader, "get_code", None)
            self._code[name] = get_code(name) if get_code else None
        return self._code[name]


class SteporalWorkflowRunner(WorkflowRunner):
    """Runs our workflows in the cheap sandbox, and all others as the worker would without us.

    Args:
        modules: The modules that define workflows.
        others: The worker's own runner.
    """

    def __init__(self, modules: Iterable[str], others: WorkflowRunner) -> None:
        self._restrictions = replace(SandboxRestrictions.default, passthrough_modules=AllExcept(modules))
        self._module_code = ModuleCode()
        self._others = others
        self._failure_types: tuple[type[BaseException], ...] = ()

    def prepare_workflow(self, defn: temporalio.workflow._Definition) -> None:
        """See base class."""
        if is_compiled(defn.cls):
            with _Sandbox(self._restrictions).entered():
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


class _Sandbox:
    """One sandbox: its modules, and its restrictions while code runs in it."""

    def __init__(self, restrictions: SandboxRestrictions) -> None:
        self._context = RestrictionContext()
        self._importer = Importer(restrictions, self._context)
        self.thread_id: int | None = None

    @contextmanager
    def entered(self, *, running: bool = False) -> Iterator[None]:
        """Run code in the sandbox; ``running`` forbids what a module may do while it is loaded."""
        self._context.is_runtime = running
        self._context.in_activation = running
        temporalio.workflow.unsafe._set_in_sandbox(True)
        self.thread_id = threading.get_ident()
        try:
            with self._importer.applied():
                yield
        finally:
            self.thread_id = None
            temporalio.workflow.unsafe._set_in_sandbox(False)
            self._context.is_runtime = False
            self._context.in_activation = False


class _Instance(WorkflowInstance):
    """A run in its sandbox."""

    def __init__(self, details: WorkflowInstanceDetails, sandbox: _Sandbox, module_code: ModuleCode) -> None:
        self._info = details.info
        self._sandbox = sandbox
        with sandbox.entered():
            definition = _definition(details.defn, loaded_again(details.defn.cls, module_code.load))
        with sandbox.entered(running=True):
            self._instance = _unsandboxed.create_instance(replace(details, defn=definition))

    def activate(self, act: Any) -> Any:
        with self._sandbox.entered(running=True):
            return self._instance.activate(act)

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
