"""The app: the workflows and sinks that a client defines, and the defaults of their options; no connection."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Literal

from temporalio.common import RetryPolicy

from .checks import check_step_functions
from .closures.member_names import remember_source
from .definition import Definition, RunFailure
from .durations import Duration
from .errors import DefinitionError
from .events import FAILED, MAX_EVENT_ID_BYTES
from .outbound.sinks import EventSink
from .triggers import Trigger, event_trigger
from .validation import (
    check_code_timeout,
    check_handler,
    check_heartbeat_timeout,
    check_id,
    check_max_attempts,
    check_park_after,
    check_retry,
    check_revision,
    check_schema,
    check_triggers,
)
from .values.known_types import package_of
from .values.main_module import imported_name
from .values.type_names import shown
from .wire.limits import MAX_WORKFLOW_ID_BYTES
from .wire.workflow_ids import workflow_id_of
from .workflow import FAILURE_SUFFIX, Handler, Workflow, WorkflowExt, WorkflowStarter, check_ext

REVISION = "STEPORAL_REVISION"

DEFAULT_MAX_ATTEMPTS = 4
DEFAULT_HEARTBEAT_TIMEOUT = timedelta(seconds=20)
DEFAULT_CODE_TIMEOUT = timedelta(days=1)

DEFAULT_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2.0, maximum_interval=timedelta(minutes=5)
)


class App:
    """Definitions of one app. See :class:`steporal.Client` for the arguments.

    Attributes:
        id: The app's id.
        task_queue: The task queue of its runs.
        max_attempts: Default number of attempts of each step and of each body.
        retry: Default backoff between attempts.
        step_packages: Top-level packages whose functions are steps of the app; those of the handlers are among them.
        park_after: Default time for which a run only waits before it is parked; None if runs are never parked.
        heartbeat_timeout: Default time for which the worker of a step may send no heartbeat.
        code_timeout: Default time for which a step waits for a worker that has its code.
        workflows: The workflows by id, in the order of their definitions.
        sinks: The sinks by id.
    """

    def __init__(
        self,
        id: str,
        *,
        task_queue: str | None,
        max_attempts: int,
        retry: RetryPolicy | None,
        step_packages: Iterable[str],
        park_after: Duration | Literal["never"],
        heartbeat_timeout: Duration,
        code_timeout: Duration,
        revision: int | None,
    ) -> None:
        self.id: str = check_id(id, "a client's id")
        where = f"client {id!r}"
        self.task_queue: str = self.id if task_queue is None else check_id(task_queue, f"the task_queue of {where}")
        self.max_attempts: int = check_max_attempts(max_attempts, where)
        self.retry: RetryPolicy = DEFAULT_RETRY if retry is None else check_retry(retry, where)
        self.step_packages: set[str] = _checked_packages(step_packages, where)
        self.park_after: timedelta | None = check_park_after(park_after, where)
        self.heartbeat_timeout: timedelta = check_heartbeat_timeout(heartbeat_timeout, where)
        self.code_timeout: timedelta = check_code_timeout(code_timeout, where)
        self._revision = check_revision(revision, f"revision of {where}")
        self.workflows: dict[str, Workflow[Any, Any]] = {}
        self.sinks: dict[str, EventSink] = {}

    @property
    def revision(self) -> int | None:
        """Revision of the code, as an argument or ``STEPORAL_REVISION`` gives it; None without either."""
        if self._revision is not None or REVISION not in os.environ:
            return self._revision
        return check_revision(os.environ[REVISION], REVISION)

    @revision.setter
    def revision(self, revision: int | None) -> None:
        self._revision = check_revision(revision, f"revision of client {self.id!r}")

    def definitions(self) -> Iterator[Definition]:
        """Yield everything that Temporal can run for the app."""
        yield from self.workflows.values()
        yield from self.sinks.values()

    def define(
        self,
        handler: Handler[Any, Any],
        client: WorkflowStarter,
        *,
        id: str,
        input_schema: Any = None,
        triggers: Sequence[Trigger] = (),
        max_attempts: int | None = None,
        retry: RetryPolicy | None = None,
        ext: WorkflowExt | None = None,
    ) -> Workflow[Any, Any]:
        """Add a workflow, and the workflow that its ``on_failure`` is; see :meth:`steporal.Client.workflow`.

        Raises:
            DefinitionError: An argument is not valid; nothing was added.
        """
        self._check(id, handler, input_schema)
        where = f"workflow {id!r}"
        ext = check_ext(ext, id)
        defined = Workflow(
            id=id,
            client=client,
            task_queue=self.task_queue,
            step_packages=self.step_packages,
            handler=handler,
            input_schema=input_schema,
            triggers=check_triggers(triggers, id, input_schema),
            max_attempts=self.max_attempts if max_attempts is None else check_max_attempts(max_attempts, where),
            retry=self.retry if retry is None else check_retry(retry, where),
            ext=ext,
            park_after=self.park_after if ext.park_after is None else check_park_after(ext.park_after, where),
            heartbeat_timeout=self.heartbeat_timeout
            if ext.heartbeat_timeout is None
            else check_heartbeat_timeout(ext.heartbeat_timeout, where),
            code_timeout=self.code_timeout if ext.code_timeout is None else check_code_timeout(ext.code_timeout, where),
        )
        self.workflows[id] = defined
        self.step_packages.update((package_of(handler.__module__), package_of(imported_name(handler.__module__))))
        if ext.on_failure is not None:
            self._define_on_failure(defined, ext.on_failure, client)
        return defined

    def _define_on_failure(
        self, workflow: Workflow[Any, Any], handler: Handler[Any, Any], client: WorkflowStarter
    ) -> None:
        """Define the workflow that starts when a run of ``workflow`` has failed, as Inngest does."""
        function_id = json.dumps(f"{self.id}-{workflow.id}", ensure_ascii=False)
        self.define(
            handler,
            client,
            id=workflow.id + FAILURE_SUFFIX,
            input_schema=RunFailure,
            triggers=[event_trigger(FAILED, f"event.data.function_id == {function_id}")],
            max_attempts=workflow.max_attempts,
            retry=workflow.retry,
        )

    def add_sink(self, sink: EventSink) -> None:
        """Add a sink.

        Raises:
            DefinitionError: Its id is reserved, or belongs to another definition; nothing was added.
        """
        self._check_free(sink.id)
        if sink.id in self.workflows:
            raise DefinitionError(
                f"client {self.id!r} has a workflow {sink.id!r} already; give the event_sink its own id"
            )
        self.sinks[sink.id] = sink

    def _check(self, id: str, handler: Handler[Any, Any], input_schema: Any) -> None:
        check_id(id, f"a workflow's id in client {self.id!r}")
        if len(workflow_id_of(self.id, id, "").encode()) + MAX_EVENT_ID_BYTES > MAX_WORKFLOW_ID_BYTES:
            raise DefinitionError(
                f"workflow {id!r} of client {self.id!r}: the ids are too long together; with an event's id, of at most "
                f"{MAX_EVENT_ID_BYTES} bytes, they make Temporal's workflow id, in which each slash takes two bytes"
            )
        self._check_free(id)
        check_handler(handler, id)
        if id in self.workflows and not _is_imported_again(self.workflows[id].handler, handler):
            other = self.workflows[id].handler
            raise DefinitionError(
                f"client {self.id!r} has a workflow {id!r} already, {other.__module__}.{other.__qualname__}; "
                "give each workflow its own id"
            )
        check_schema(input_schema, id)
        check_step_functions(handler, id)
        remember_source(handler)

    def _check_free(self, id: str) -> None:
        if id.startswith("steporal."):
            raise DefinitionError(f"workflow id {id!r} starts with 'steporal.', which is reserved for system workflows")
        if id in self.sinks:
            raise DefinitionError(f"client {self.id!r} has an event_sink {id!r} already; give each its own id=...")


def _checked_packages(packages: object, where: str) -> set[str]:
    """Return names of top-level packages."""
    names = None if isinstance(packages, str) or not isinstance(packages, Iterable) else list(packages)
    if names is None or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise DefinitionError(
            f"step_packages of {where} is {shown(packages)}; it takes a list of names of top-level packages: "
            "step_packages=['billing']"
        )
    return set(names)


def _is_imported_again(other: Handler[Any, Any], handler: Handler[Any, Any]) -> bool:
    """Return whether a handler is another one of ``__main__``, whose module is now imported by its own name."""
    first, second = (getattr(each, "__code__", None) for each in (other, handler))
    if other.__module__ != "__main__" or first is None or second is None:
        return False
    return bool(first.co_filename == second.co_filename and first.co_qualname == second.co_qualname)
