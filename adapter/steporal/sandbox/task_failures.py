"""Logging of failing workflow tasks, once for each run. The SDK logs them at each attempt, or not at all.

The runner here also flushes what runs count to the worker's meter, as it knows whether a task fails.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from temporalio import activity
from temporalio.common import MetricMeter
from temporalio.exceptions import ApplicationError
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner

from ..observability.after_task import AFTER_TASK, AfterTask
from ..observability.progress import is_watched
from ..observability.run_metrics import COUNT
from ..sdk.eviction import is_eviction
from ..values.encrypted import forget_unreadable, unreadable
from ..wire.failures import FAILED_CODE, logged
from ..workflow_kinds import kind_of
from .nondeterminism import NondeterminismError
from .task_log import is_news, log_once
from .untrusted_starts import ArityRunner

_REASON = re.compile(r'message: "((?:[^"\\]|\\.)*)"')
"""Message of Temporal's core about a run that it removes from its cache."""


# --- log records of the SDK ----------------------------------------------------------------------------------------


def quiet_the_sdk() -> None:
    """Make the SDK log a failing workflow task once for each run and error, and never if Steporal has logged it.

    This applies to the lines "Failed activation on workflow", "Failed handling activation on workflow" (also logged
    when a value cannot be read), "Failed encoding completion on workflow" (stored), and "… restricted".
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_once)
    logging.getLogger(_ACTIVITIES).addFilter(_in_words_of_steps)


_ACTIVITIES = "temporalio.activity"
_ACTIVITY_FAILED = "Completing activity as failed"

_LOGGERS = (
    "temporalio.worker._workflow",
    "temporalio.worker._workflow_instance",
    "temporalio.worker.workflow_sandbox._restrictions",
)

_FAILED = ("Failed activation on", "Failed handling activation on", "Failed encoding completion on")


def _once(record: logging.LogRecord) -> bool:
    if record.levelno < logging.WARNING:
        return True
    if record.name == _LOGGERS[2]:  # this line has neither run nor place, and precedes the error that has both
        return is_news("", record.getMessage())
    error = record.exc_info[1] if record.exc_info else None
    if error is None or not str(record.msg).startswith(_FAILED):
        return True
    if unknown := _UNKNOWN_WORKFLOW.match(getattr(error, "message", "")):
        name, known = unknown.groups()
        record.msg = (
            "this worker does not define workflow %r, but received a run of it (run id %s); it defines %s. The run "
            "waits for a worker that does: workers on one task queue must define the same workflows"
        )
        record.args = (name, *(record.args or ("unknown",)), known)
        record.exc_info = None
    # All three messages name the run.
    return not isinstance(error, NondeterminismError) and is_news(record.getMessage(), f"{error!r}")


_UNKNOWN_WORKFLOW = re.compile(r"Workflow class (.+) is not registered on this worker, available workflows: (.+)")


def _in_words_of_steps(record: logging.LogRecord) -> bool:
    """Rewrite the SDK's record of a failed step: it names the step and the run, and has only the user's frames.

    The SDK logs the activity's whole dict of ids, and 25 lines of traceback, of which the last two are the user's.
    """
    info = getattr(record, "temporal_activity", None)
    error = record.exc_info[1] if record.exc_info else None
    if info is None or error is None or not str(record.msg).startswith(_ACTIVITY_FAILED):
        return True
    if not info["activity_type"].startswith("steporal."):
        return True
    step_id = _ATTEMPT_NUMBER.sub("", info["activity_id"])
    error_text = f"{error.type}: {error.message}" if isinstance(error, ApplicationError) else repr(error)
    record.msg = "step %r of run %r failed on attempt %s: %s"
    record.args = (step_id, info["workflow_id"], _attempts(info["attempt"]), error_text)
    record.exc_info = logged(error)
    setattr(record, FAILED_CODE, True)
    return True


_ATTEMPT_NUMBER = re.compile(r"#\d+$")
"""End of the activity id of a step that was scheduled again."""


def _attempts(attempt: int) -> str:
    policy = activity.info().retry_policy if activity.in_activity() else None
    return f"{attempt} of {policy.maximum_attempts}" if policy and policy.maximum_attempts else str(attempt)


# --- code that does not fit a run ----------------------------------------------------------------------------------


class WatchedRunner(WorkflowRunner):
    """Runs workflows by another runner, and logs once for each run if its history does not fit its code.

    Temporal's core detects the mismatch. It only reports to the worker why the run is evicted from its cache; a worker
    without a cache (``max_cached_workflows=0``) does not even receive that.

    Args:
        runner: The other runner.
        facts: Facts about the worker: names that runs find among their extern functions.
        meter: The meter that receives what runs count; None if metrics are off.
        is_traced: Whether runs record spans.
    """

    def __init__(
        self, runner: WorkflowRunner, facts: Iterable[str], meter: MetricMeter | None = None, *, is_traced: bool = False
    ) -> None:
        self._runner = ArityRunner(runner)
        self._facts = {fact: lambda: True for fact in facts}
        self._meter = meter
        self._is_traced = is_traced

    def prepare_workflow(self, defn: Any) -> None:
        """See base class."""
        self._runner.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """See base class."""
        externs: dict[str, Callable[..., Any]] = {**det.extern_functions, **self._facts}
        after_task: AfterTask | None = None
        if self._meter is not None or self._is_traced or is_watched():
            after_task = AfterTask()
            externs[AFTER_TASK] = after_task.take
        if self._meter is not None:
            meter = _meter_of_run(self._meter, det)
            externs[COUNT] = lambda: meter
        instance = self._runner.create_instance(replace(det, extern_functions=externs))
        return _Watched(instance, after_task, can_recover=kind_of(det.defn.cls) == "run")

    def set_worker_level_failure_exception_types(self, types: Any) -> None:
        """See base class."""
        self._runner.set_worker_level_failure_exception_types(types)


def _meter_of_run(meter: MetricMeter, det: WorkflowInstanceDetails) -> MetricMeter:
    """Return the meter of a run with the SDK's labels; the SDK's own can only be used inside the run."""
    return meter.with_additional_attributes(
        {"task_queue": det.info.task_queue, "workflow_type": det.info.workflow_type}
    )


class _Watched(WorkflowInstance):
    def __init__(self, instance: WorkflowInstance, after_task: AfterTask | None, *, can_recover: bool) -> None:
        self._instance = instance
        self._after_task = after_task
        self._can_recover = can_recover

    def activate(self, act: Any) -> Any:
        if is_eviction(act):
            removal = act.jobs[0].remove_from_cache
            if removal.reason == removal.NONDETERMINISM:
                self._log_nondeterminism(removal.message)
        forget_unreadable()
        done = self._instance.activate(act)
        # The task fails even if the body has caught the error: it is retried until a worker has the key.
        error = unreadable()
        if self._after_task is not None:
            self._after_task.end_task(has_failed=error is not None or done.HasField("failed"))
        if error is not None:
            raise error
        return done

    def _log_nondeterminism(self, removal: str) -> None:
        info = self.get_info()
        reason = _REASON.search(removal)
        recover = ", or with the new one after `steporal recover`" if self._can_recover else ""
        log_once(
            info.run_id,
            info.workflow_id,
            f"the code of workflow {info.workflow_type!r} does not fit the history of a run: it was probably changed "
            "while the run was in flight, or is not deterministic. The run waits: it continues with the code that it "
            f"was started with{recover}. Temporal reports: {reason[1] if reason else removal}",
        )

    def get_info(self) -> Any:
        return self._instance.get_info()

    def get_thread_id(self) -> int | None:
        return self._instance.get_thread_id()

    def get_serialization_context(self, command_info: Any) -> Any:
        return self._instance.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: Any) -> Any:
        return self._instance.get_external_store_context(command_info)
