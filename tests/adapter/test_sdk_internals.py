"""What of Temporal's SDK we touch that it does not promise: all of it, by name, and that it is as we need it.

After another minor version of the SDK is taken, the lists that fail here say what to look at.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import temporalio.bridge.worker
import temporalio.worker._workflow
import temporalio.worker._workflow_instance
import temporalio.workflow
from recording import Workers
from temporalio.bridge.proto.workflow_activation import WorkflowActivationJob
from temporalio.contrib.opentelemetry import ReplaySafeTracerProvider
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.worker.workflow_sandbox import _restrictions

import steporal
import steporal_workers
from steporal import Context, Step
from steporal.routing.catalog.shards import ShardWorkflow
from steporal.routing.mailbox import MailboxWorkflow
from steporal.routing.topics.topic import TopicWorkflow
from steporal.runtime import branches as _branches
from steporal.sandbox import runner, task_failures, untrusted_starts
from steporal.sdk import ordered_tasks

TOUCHED: dict[str, set[str]] = {
    "sdk/heartbeats.py": {"_bridge_worker"},
    "sdk/traces.py": {"_tracer_provider"},
    "sdk/workflow_definition.py": {"_Definition"},
    "sdk/eviction.py": {"_tasks"},
    "sdk/pending.py": {
        "vars",
        "_pending_timers",
        "_pending_child_workflows",
        "_pending_activities",
        "_pending_nexus_operations",
        "_pending_external_signals",
        "_pending_external_cancels",
        "_conditions",
        "_ready",
    },
    "runtime/branches.py": {
        "vars",
        "_apply",
        "_run_once",
        "call_soon",
        "call_later",
        "call_at",
        "create_task",
        "time",
        "workflow_time_ns",
        "workflow_random",
        "workflow_sleep",
        "activate",
    },
    "sdk/current_details.py": {"vars", "workflow_get_current_details"},
    "sdk/worker_versioning.py": {"vars", "_versioning_behavior"},
    "sdk/wait_until.py": {"_workflow_instance", "_TimerOptions", "_TimerOptionsCtxVar"},
    "sdk/ordered_tasks.py": {"vars", "create_task", "create_future", "_register_task", "_GatheringFuture"},
}
"""By module, the names that it touches; ``vars`` stands for those of a run's event loop, the SDK's instance."""

NOT_TEMPORALS = {
    "_fields",
    "_replace",
    "_name",
    "_Compress",
    "_Decompress",
    "_since",
    "_rank",
    "_exit",
    "_current_frames",
    "_run_exitfuncs",
    "_goes_on",
    "_inside",
    "_is_closed",
    "_step_calls",
    "_getframe",
    "_fut_waiter",
}
"""Private names of others: of named tuples, of our own classes, of zlib, os, sys, asyncio and atexit."""

PACKAGES = [Path(package.__file__).parent for package in (steporal, steporal_workers)]  # type: ignore[arg-type]


# --- where they are touched ----------------------------------------------------------------------------------------


def touched_in(source: str) -> Iterator[str]:
    """The private names that a module touches, of what is not its own."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.startswith(("temporalio", "asyncio")):
                yield from (part for part in module.split(".") if part.startswith("_"))
                yield from (alias.name for alias in names if alias.name.startswith("_"))
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if name.startswith("_") and not name.startswith("__"):
                yield name
            case ast.Call(func=ast.Name(id="vars"), args=[ast.Name(id="loop")]):
                yield "vars"
            case ast.Subscript(value=value, slice=ast.Constant(value=str(name))) if _is_of_loop(value):
                yield name


def _is_of_loop(node: ast.expr) -> bool:
    return ast.unparse(node) in ("instance", "vars(loop)")


def test_private_names_of_the_sdk_are_touched_in_a_few_modules_alone() -> None:
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for file in package.rglob("*.py"):
            names = set(touched_in(file.read_text(encoding="utf-8"))) - NOT_TEMPORALS
            if names:
                found[file.relative_to(package).as_posix()] = names
    assert found == TOUCHED


@pytest.mark.parametrize(
    "line",
    [
        "from temporalio.worker._workflow import _DeadlockError",
        "from temporalio import _x",
        "handle._client",
        "temporalio.client._impl.x",
        "vars(loop)['_time_ns']",
    ],
)
def test_each_way_to_touch_one_is_found(line: str) -> None:
    assert set(touched_in(line)) - NOT_TEMPORALS


# --- that they are there -------------------------------------------------------------------------------------------


def parameters(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_what_we_touch_of_the_sdk_is_as_we_need_it() -> None:
    instance = temporalio.worker._workflow_instance
    source = inspect.getsource
    needs: dict[str, bool] = {
        "_Definition.cls": "cls" in {each.name for each in fields(temporalio.workflow._Definition)},
        "_TimerOptions(user_metadata=)": "user_metadata" in parameters(instance._TimerOptions),
        "_TimerOptionsCtxVar is read by call_at": "_TimerOptionsCtxVar.get()" in source(instance._WorkflowInstanceImpl),
        "_register_task(task, *, name)": parameters(instance._WorkflowInstanceImpl._register_task) == ["task", "name"],
        "create_task(coro, *, name, context)": parameters(instance._WorkflowInstanceImpl.create_task)
        == ["coro", "name", "context"],
        "_apply(job), once for each job": "self._apply(job)" in source(instance._WorkflowInstanceImpl.activate),
        "_run_once(*, check_conditions, jobs)": parameters(instance._WorkflowInstanceImpl._run_once)
        == ["check_conditions", "jobs"],
        "conditions are looked at when nothing is ready": "self._conditions[:] = ["
        in source(instance._WorkflowInstanceImpl._run_once),
        "the jobs of an activation": {each.name for each in WorkflowActivationJob.DESCRIPTOR.fields}
        >= _branches._OUTCOMES,
        "workflow.now() and time() read workflow_time_ns": "workflow_time_ns()" in source(temporalio.workflow.time_ns),
        "workflow.random() and uuid4() read workflow_random": "workflow_random()" in source(temporalio.workflow.random),
        "create_future()": parameters(instance._WorkflowInstanceImpl.create_future) == [],
        "workflow_get_current_details()": parameters(instance._WorkflowInstanceImpl.workflow_get_current_details) == [],
        "Worker._bridge_worker.record_activity_heartbeat(heartbeat)": parameters(
            temporalio.bridge.worker.Worker.record_activity_heartbeat
        )
        == ["comp"]
        and "self._bridge_worker = temporalio.bridge.worker.Worker.create(" in source(temporalio.worker.Worker),
        "a query's task has its name": f'name=f"{ordered_tasks._QUERY}' in source(instance),
        "a _versioning_behavior that is none is not sent": "if self._versioning_behavior:" in source(instance),
        "a run that is not ended says that tasks remain": "Eviction processed, but" in source(instance),
        "the abstract methods of WorkflowInstance": all(
            callable(vars(each).get(name))
            for each in (runner._Instance, task_failures._Watched)
            for name in WorkflowInstance.__abstractmethods__
        ),
        "the abstract methods of WorkflowRunner": all(
            callable(vars(each).get(name))
            for each in (untrusted_starts.ArityRunner, runner.SteporalWorkflowRunner, task_failures.WatchedRunner)
            for name in WorkflowRunner.__abstractmethods__
        ),
        "ReplaySafeTracerProvider._tracer_provider": "self._tracer_provider = " in source(ReplaySafeTracerProvider),
        "_Definition.arg_types": all(
            untrusted_starts.number_of(temporalio.workflow._Definition.must_from_class(kind)) == number
            for kind, number in ((ShardWorkflow, 0), (TopicWorkflow, 1), (MailboxWorkflow, 1))
        ),
        "WorkflowInstanceDetails": {"defn", "info", "extern_functions"}
        <= {each.name for each in fields(WorkflowInstanceDetails)},
        "asyncio's _GatheringFuture has our hash": vars(asyncio.tasks._GatheringFuture)["__hash__"]  # type: ignore[attr-defined]
        is ordered_tasks._number,
    }
    loggers = (temporalio.worker._workflow, instance, _restrictions)
    needs |= {
        f"the logger {name}": module.logger.name == name
        for module, name in zip(loggers, task_failures._LOGGERS, strict=True)
    }
    said = "".join(map(source, loggers))
    needs |= {f"the log line {line!r}": line in said for line in task_failures._FAILED}
    assert [what for what, is_so in needs.items() if not is_so] == []


async def test_the_event_loop_of_a_run_has_what_we_look_at(app: steporal.Client, workers: Workers) -> None:
    pending = ["_pending_timers", "_pending_child_workflows", "_pending_activities", "_pending_nexus_operations"]
    pending += ["_pending_external_signals", "_pending_external_cancels"]
    names = [*pending, "_tasks", "_conditions", "_ready"]

    @app.workflow(id="looks")
    async def looks(ctx: Context[Any], step: Step) -> Any:
        instance = vars(asyncio.get_running_loop())
        await step.run("first", lambda: None)
        step_of = asyncio.create_task(step.run("step", lambda: None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found = {name: type(instance[name]).__name__ for name in names}
        counts = [len(instance["_pending_activities"]), len(instance["_pending_timers"])]
        await step_of
        return [found, counts, "_versioning_behavior" in instance]

    async with workers(app):
        found, counts, has_behavior = await (await looks.start()).result()
    assert found == dict.fromkeys(pending, "dict") | {"_tasks": "set", "_conditions": "list", "_ready": "deque"}
    assert (counts, has_behavior) == ([1, 0], True)
