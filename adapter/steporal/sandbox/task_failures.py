"""What a worker says of workflow tasks that fail: of itself, it says it at each attempt, or not at all.

Also where what runs count is told to the worker's meter, as here it is known whether the task fails.
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

from ..observability.after_task import AFTERWARDS, Afterwards
from ..observability.progress import is_watched
from ..observability.run_metrics import COUNT
from ..sdk.eviction import is_eviction
from ..values.encrypted import forget_unreadable, unreadable
from ..wire.failures import FAILED_CODE, logged
from ..workflow_kinds import kind_of
from .nondeterminism import NondeterminismError
from .task_log import is_news, said_once
from .untrusted_starts import ArityRunner

_REASON = re.compile(r'message: "((?:[^"\\]|\\.)*)"')
"""In what Temporal's core says of a run that it removes from its cache."""


# --- what the SDK logs ---------------------------------------------------------------------------------------------


def quiet_the_sdk() -> None:
    """Let the SDK log a workflow task that fails once for each run and error, and not at all where we have said it.

    Of its lines "Failed activation on workflow", "Failed handling activation on workflow" (which is also said where a
    value cannot be read), "Failed encoding completion on workflow" (stored), and "… restricted".
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
    if record.name == _LOGGERS[2]:  # says neither run nor line, and comes before the error that says both
        return is_news("", record.getMessage())
    error = record.exc_info[1] if record.exc_info else None
    if error is None or not str(record.msg).startswith(_FAILED):
        return True
    if unknown := _UNKNOWN_WORKFLOW.match(getattr(error, "message", "")):
        name, known = unknown.groups()
        record.msg = (
            "this worker does not define workflow %r, and was given a run of it (run id %s); it defines %s. The run "
            "waits for a worker that does: workers on one task queue must define the same workflows"
        )
        record.args = (name, *(record.args or ("unknown",)), known)
        record.exc_info = None
    # All three name the run.
    return not isinstance(error, NondeterminismError) and is_news(record.getMessage(), f"{error!r}")


_UNKNOWN_WORKFLOW = re.compile(r"Workflow class (.+) is not registered on this worker, available workflows: (.+)")


def _in_words_of_steps(record: logging.LogRecord) -> bool:
    """Rewrite the SDK's record of a failed step: it names the step and the run, and has the user's frames only.

    The SDK logs the activity's whole dict of ids, and 25 lines of traceback of which the last two are the user's.
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
"""The end of the activity id of a step that was scheduled again."""


def _attempts(attempt: int) -> str:
    policy = activity.info().retry_policy if activity.in_activity() else None
    return f"{attempt} of {policy.maximum_attempts}" if policy and policy.maximum_attempts else str(attempt)


# --- code that does not fit a run ----------------------------------------------------------------------------------


class WatchedRunner(WorkflowRunner):
    """Runs workflows by another runner, and says once of each run that it does not fit its code.

    Temporal's core finds that, and tells the worker nothing but why the run is to be forgotten; to a worker that keeps
    no runs in memory (``max_cached_workflows=0``), not even that.

    Args:
        runner: The other runner.
        facts: What is so of the worker: names that runs find among their extern functions.
        meter: Takes what runs count; None: nobody measures.
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
        afterwards: Afterwards | None = None
        if self._meter is not None or self._is_traced or is_watched():
            afterwards = Afterwards()
            externs[AFTERWARDS] = afterwards.take
        if self._meter is not None:
            meter = _meter_of_run(self._meter, det)
            externs[COUNT] = lambda: meter
        instance = self._runner.create_instance(replace(det, extern_functions=externs))
        return _Watched(instance, afterwards, can_recover=kind_of(det.defn.cls) == "run")

    def set_worker_level_failure_exception_types(self, types: Any) -> None:
        """See base class."""
        self._runner.set_worker_level_failure_exception_types(types)


def _meter_of_run(meter: MetricMeter, det: WorkflowInstanceDetails) -> MetricMeter:
    """What the SDK's meter of a run is, which can be used within the run alone."""
    return meter.with_additional_attributes(
        {"task_queue": det.info.task_queue, "workflow_type": det.info.workflow_type}
    )


class _Watched(WorkflowInstance):
    def __init__(self, instance: WorkflowInstance, afterwards: Afterwards | None, *, can_recover: bool) -> None:
        self._instance = instance
        self._afterwards = afterwards
        self._can_recover = can_recover

    def activate(self, act: Any) -> Any:
        if is_eviction(act):
            removal = act.jobs[0].remove_from_cache
            if removal.reason == removal.NONDETERMINISM:
                self._say(removal.message)
        forget_unreadable()
        done = self._instance.activate(act)
        # The task fails, also where the body has caught the error: it is tried again until a worker has the key.
        error = unreadable()
        if self._afterwards is not None:
            self._afterwards.end_task(has_failed=error is not None or done.HasField("failed"))
        if error is not None:
            raise error
        return done

    def _say(self, removal: str) -> None:
        info = self.get_info()
        reason = _REASON.search(removal)
        recover = ", or with the new one after `steporal recover`" if self._can_recover else ""
        said_once(
            info.run_id,
            info.workflow_id,
            f"the code of workflow {info.workflow_type!r} does not fit what a run of it has done: it was probably "
            "changed while the run was in flight, or does something that is not deterministic. The run waits: it goes "
            f"on with the code that it was started with{recover}. Temporal says: {reason[1] if reason else removal}",
        )

    def get_info(self) -> Any:
        return self._instance.get_info()

    def get_thread_id(self) -> int | None:
        return self._instance.get_thread_id()

    def get_serialization_context(self, command_info: Any) -> Any:
        return self._instance.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: Any) -> Any:
        return self._instance.get_external_store_context(command_info)
