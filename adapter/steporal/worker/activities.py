"""Activities of an app: code that runs outside workflows, on any worker of the app."""

from __future__ import annotations

import inspect
import logging
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from temporalio import activity
from temporalio.common import RawValue

from ..activities.blocking import watched
from ..activities.executions import Executions
from ..activities.reporting import alive, attempt_number, counted, failing
from ..activities.threads import StepThreads
from ..app import App
from ..closures.calls import call_metadata
from ..closures.references import AppCode, Resolver
from ..context import Context, ContextExt, Input, InputExt
from ..errors import UnencryptedSecretError, UnserializableError
from ..events import ReceivedEvent
from ..observability.search_attributes import has_all
from ..outbound.activities import HttpActivities
from ..routing.catalog.lookup import find_task_queue
from ..routing.mailbox_client import Mailboxes
from ..routing.outcome import find_end
from ..routing.sending import Sending
from ..routing.topics.client import Topics
from ..routing.topics.subscription import Subscription
from ..types import JSON
from ..values.annotated import dump_annotated
from ..values.converter import from_raw, return_type, to_raw
from ..values.decoding import decode
from ..values.encoding import TAG, encode
from ..values.encrypted import encrypts
from ..wire.limits import to_limited
from ..wire.mailbox_wait import Wait
from ..wire.memo import TYPED
from ..wire.names import (
    CHECK_SIGNAL,
    CLOSE_MAILBOX,
    FIND_END,
    FIND_MAILBOX,
    FIND_WORKFLOW,
    HAS_ATTRIBUTES,
    OPEN_MAILBOX,
    RELEASE_MAILBOXES,
    RUN_STEP,
    SEND_EVENT,
    SEND_SIGNAL,
    SUBSCRIBE_RUN,
    UNSUBSCRIBE_RUN,
)
from ..wire.run_input import decode_input
from ..wire.run_state import packed_outcome
from ..wire.sent_events import pack
from ..wire.signal_types import issues_of
from ..wire.step_activities import BEFORE
from ..wire.storage import size_limit_with
from ..workflow import Workflow

_logger = activity.LoggerAdapter(logging.getLogger("steporal.step"), None)
_logger.activity_info_on_message = False


@dataclass(frozen=True, slots=True)
class StepSurroundings:
    """Environment of a captured ``ctx`` in a step function."""

    random: random.Random = field(default_factory=random.SystemRandom)

    @property
    def attempt(self) -> int:
        return attempt_number() - 1

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        return _logger

    def now(self) -> datetime:
        return datetime.now(UTC)

    def uuid4(self) -> UUID:
        return uuid4()


class Activities:
    """Activities of one app.

    Args:
        app: The app.
        sending: Sends its events.
        threads: Runs the step functions that are not ``async``.
        executions: Keeps track of the step functions that run in this worker.
        slots: The number of steps that this worker runs at a time.
    """

    def __init__(self, app: App, sending: Sending, threads: StepThreads, executions: Executions, slots: int) -> None:
        self._app = app
        self._sending = sending
        self._threads = threads
        self._executions = executions
        self._http = HttpActivities(app.sinks, executions, slots)
        self._code = AppCode({w.id: w.handler for w in app.workflows.values()}, app.step_packages)

    def all(self) -> list[Callable[..., Any]]:
        """Return the activities for a worker."""
        return [
            self.run_step,
            self._executions.join_step,
            self.send_event,
            self.find_workflow,
            self.find_end,
            self.subscribe,
            self.unsubscribe,
            self.open_mailbox,
            self.close_mailbox,
            self.release_mailboxes,
            self.find_mailbox,
            self.send_signal,
            self.check_signal,
            self.has_attributes,
            *self._http.all(),
        ]

    @activity.defn(name=RUN_STEP)
    async def run_step(self, argument: RawValue) -> RawValue:
        """Run a step function that a reference names."""
        call = from_raw(argument)
        return await self._executions.run(call["step"], call.pop(BEFORE, {}), lambda: self._run_step(call))

    async def _run_step(self, call: dict[str, JSON]) -> RawValue:
        async with failing(call.get("call")), counted():
            function, arguments = Resolver(self._code, lambda data: self._captive(data, call)).call(call)
            result = await self._call(call["step"], function, arguments)
            return _encoded_result(call["step"], function, result, call_metadata(call.get("call")), self._code.packages)

    @activity.defn(name=SEND_EVENT)
    async def send_event(self, argument: RawValue) -> RawValue:
        """Send events."""
        request = from_raw(argument)
        events = [ReceivedEvent.model_validate(event) for event in request["events"]]
        call = request.get("call")
        async with alive(), failing(call), counted():
            return to_raw(pack(await self._sending.dispatch(activity.client(), events)), call_metadata(call))

    @activity.defn(name=FIND_WORKFLOW)
    async def find_workflow(self, argument: RawValue) -> RawValue:
        """Look up the task queue of another app's workflow in the catalog."""
        request = from_raw(argument)
        async with failing():
            catalog = self._sending.dispatcher(activity.client()).catalog
            return to_raw({"task_queue": await find_task_queue(catalog, request["app"], request["workflow"])})

    @activity.defn(name=FIND_END)
    async def find_end(self, argument: RawValue) -> RawValue:
        """Look up how an invoked run has ended; return null while it is open."""
        async with failing():
            temporal = activity.client()
            end = await find_end(temporal, from_raw(argument)["workflow_id"])
            return to_raw(packed_outcome(end, is_stored=temporal.data_converter.external_storage is not None))

    @activity.defn(name=HAS_ATTRIBUTES)
    async def has_attributes(self, argument: RawValue) -> RawValue:
        """Return whether the namespace has Steporal's search attributes."""
        async with failing():
            return to_raw(await has_all(activity.client()))

    @activity.defn(name=SUBSCRIBE_RUN)
    async def subscribe(self, argument: RawValue) -> RawValue:
        """Subscribe a run to topics, and start those that do not exist yet."""
        request = from_raw(argument)
        wanted = Subscription.model_validate(request["subscription"])
        async with failing():
            parts = await Topics(activity.client()).subscribe(request["topics"], wanted)
            # A history does not contain the arguments of local activities, so its readers need them in the result.
            result = {"key": wanted.key, "kind": wanted.kind, "topics": request["topics"], "until": wanted.until}
            return to_raw({**result, "parts": parts} if parts else result)

    @activity.defn(name=UNSUBSCRIBE_RUN)
    async def unsubscribe(self, argument: RawValue) -> RawValue:
        """End subscriptions of a run."""
        request = from_raw(argument)
        async with failing():
            topics = Topics(activity.client())
            await topics.unsubscribe(request["workflow_id"], request["run_id"], request["keys"])
            return to_raw(None)

    @activity.defn(name=OPEN_MAILBOX)
    async def open_mailbox(self, argument: RawValue) -> RawValue:
        """Open the mailbox of a wait for a signal, or return the other wait; no mailbox if the signal was received."""
        request = from_raw(argument)
        async with failing():
            wait, run_id = Wait.model_validate(request["wait"]), ""
            if not request.get("is_received"):
                held = await Mailboxes(activity.client()).open(wait, replace=request["replace"])
                wait, run_id = held.wait, held.run_id
            # The step is for readers of the history.
            return to_raw({"run_id": run_id, "wait": wait.model_dump(mode="json"), "step": request.get("step")})

    @activity.defn(name=CLOSE_MAILBOX)
    async def close_mailbox(self, argument: RawValue) -> RawValue:
        """Close the mailbox of a wait, and return whether the wait has received its signal."""
        request = from_raw(argument)
        async with failing():
            wait = Wait.model_validate(request["wait"])
            return to_raw(await Mailboxes(activity.client()).close(wait, request["run_id"]))

    @activity.defn(name=RELEASE_MAILBOXES)
    async def release_mailboxes(self, argument: RawValue) -> RawValue:
        """Notify the mailboxes of a run that the run ends."""
        waits = [Wait.model_validate(wait) for wait in from_raw(argument)["waits"]]
        async with failing():
            await Mailboxes(activity.client()).release(waits)
            return to_raw(None)

    @activity.defn(name=FIND_MAILBOX)
    async def find_mailbox(self, argument: RawValue) -> RawValue:
        """Find the open mailbox of a signal."""
        request = from_raw(argument)
        call = request.get("call")
        async with failing(call):
            held = await Mailboxes(activity.client()).find(request["signal"])
            return to_raw(None if held is None else held.run_id, call_metadata(call))

    @activity.defn(name=SEND_SIGNAL)
    async def send_signal(self, argument: RawValue) -> RawValue:
        """Send a signal to a mailbox."""
        request = from_raw(argument)
        call = request.get("call")
        async with alive(), failing(call), counted():
            mailboxes = Mailboxes(activity.client())
            data = to_raw(request["data"])
            return to_raw(
                await mailboxes.send(request["signal"], request["mailbox"], data, id=request["id"]), call_metadata(call)
            )

    @activity.defn(name=CHECK_SIGNAL)
    async def check_signal(self, argument: RawValue) -> RawValue:
        """Check a signal's data against the schema of the wait that will receive it; return the issues, or null."""
        request = from_raw(argument)
        async with failing():
            return to_raw(issues_of(request["data"], request["type"], self._app.step_packages))

    async def _call(self, step_id: str, function: Callable[..., Any], arguments: list[Any]) -> Any:
        if inspect.iscoroutinefunction(function):
            return await watched(step_id, function(*arguments))
        result = await self._threads.run(lambda: function(*arguments))
        return await watched(step_id, result) if inspect.isawaitable(result) else result

    def _captive(self, data: dict[str, JSON], call: dict[str, JSON]) -> Context[Any]:
        if data[TAG] != "context":
            raise UnserializableError(f"a value is tagged {data[TAG]!r}, which this version of steporal does not know")
        fields = call["context"]
        workflow = self._app.workflows[call["workflow"]]
        return Context(
            input=Input(
                self._input(workflow, fields),
                fields["id"],
                fields["name"],
                datetime.fromisoformat(fields["time"]),
                fields["type"],
                InputExt(fields["v"], fields["cron"]),
            ),
            run_id=fields["run_id"],
            max_attempts=workflow.max_attempts,
            ext=ContextExt(fields["workflow_id"], activity.info().namespace or "", fields["task_queue"]),
            surroundings=StepSurroundings(),
        )

    def _input(self, workflow: Workflow[Any, Any], fields: dict[str, JSON]) -> Any:
        packages = self._app.step_packages
        if "input" in fields:
            return decode(fields["input"], packages=packages)
        return decode_input(workflow.id, workflow.input_schema, fields["data"], fields["exact"], packages)


def _encoded_result(
    step_id: str,
    function: Callable[..., Any],
    result: Any,
    metadata: Mapping[str, bytes],
    packages: Collection[str],
) -> RawValue:
    converter = activity.client().data_converter
    what, limit_for = f"the result of step {step_id!r}", size_limit_with(converter)
    try:
        return to_limited(
            what, encode(result, secrets=lambda: encrypts(converter), packages=packages), limit_for, metadata
        )
    except UnencryptedSecretError as err:
        raise UnencryptedSecretError(f"step {step_id!r} returned a value that cannot be sent: {err}") from None
    except UnserializableError as err:
        return to_limited(what, _typed(step_id, function, result, err), limit_for, metadata)


def _typed(step_id: str, function: Callable[..., Any], result: Any, error: Exception) -> JSON:
    """Return the JSON that the annotated type writes for a result, if it reads the same value back."""
    dumped = dump_annotated(result, return_type(function))
    if dumped is not None:
        return {TAG: TYPED, "value": dumped[0]}
    raise UnserializableError(f"step {step_id!r} returned a value that cannot be sent: {error}") from None
