"""The activities: what runs outside the sandbox, on any worker of the app."""

from __future__ import annotations

import inspect
import logging
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from temporalio import activity
from temporalio.common import RawValue

from .annotated import dump_annotated
from .blocking import watched
from .context import Context, ContextExt, Input, InputExt
from .converter import from_raw, return_type, to_raw
from .decoding import decode
from .encoding import TAG, encode
from .errors import UnencryptedSecretError, UnserializableError
from .events import ReceivedEvent
from .executions import Executions
from .given import received
from .outbound.activities import HttpActivities
from .reporting import alive, attempt_number, counted, failing
from .routing.ended import find_end
from .routing.lookup import find_task_queue
from .routing.mailbox import Wait
from .routing.publish import Topics
from .routing.signalling import Mailboxes
from .routing.subscription import Subscription
from .runtime.calls import told
from .runtime.carried import packed_outcome
from .runtime.limits import to_limited
from .runtime.memo import TYPED
from .runtime.references import App, Resolver
from .runtime.sent_events import pack
from .runtime.signal_types import issues_of
from .runtime.step_activity import BEFORE
from .runtime.storage import most_with
from .sealed import encrypts
from .search_attributes import has_all
from .threads import StepThreads
from .types import JSON
from .wire.names import (
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

if TYPE_CHECKING:
    from .client import Client
    from .definition import Workflow

_logger = activity.LoggerAdapter(logging.getLogger("steporal.step"), None)
_logger.activity_info_on_message = False


@dataclass(frozen=True, slots=True)
class StepSurroundings:
    """What a captured ``ctx`` is made of in a step function."""

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
    """The activities of one app.

    Args:
        client: The app's client.
        threads: Runs the step functions that are not ``async``.
        executions: Knows the step functions that run in this worker.
        slots: The steps that this worker runs at a time.
    """

    def __init__(self, client: Client, threads: StepThreads, executions: Executions, slots: int) -> None:
        self._client = client
        self._threads = threads
        self._executions = executions
        self._http = HttpActivities(client, executions, slots)
        self._app = App({w.id: w.handler for w in client.workflows}, client.step_packages)

    def all(self) -> list[Callable[..., Any]]:
        """The activities to give to a worker."""
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
            function, arguments = Resolver(self._app, lambda data: self._captive(data, call)).call(call)
            result = await self._call(call["step"], function, arguments)
            return _encoded_result(call["step"], function, result, told(call.get("call")), self._app.packages)

    @activity.defn(name=SEND_EVENT)
    async def send_event(self, argument: RawValue) -> RawValue:
        """Send events."""
        asked = from_raw(argument)
        events = [ReceivedEvent.model_validate(event) for event in asked["events"]]
        call = asked.get("call")
        async with alive(), failing(call), counted():
            return to_raw(pack(await self._client.dispatch(activity.client(), events)), told(call))

    @activity.defn(name=FIND_WORKFLOW)
    async def find_workflow(self, argument: RawValue) -> RawValue:
        """Look up in the catalog where another app's workflow runs."""
        wanted = from_raw(argument)
        async with failing():
            catalog = self._client.dispatcher(activity.client()).catalog
            return to_raw({"task_queue": await find_task_queue(catalog, wanted["app"], wanted["workflow"])})

    @activity.defn(name=FIND_END)
    async def find_end(self, argument: RawValue) -> RawValue:
        """Look how an invoked run has ended; null while it goes on."""
        async with failing():
            temporal = activity.client()
            end = await find_end(temporal, from_raw(argument)["workflow_id"])
            return to_raw(packed_outcome(end, is_stored=temporal.data_converter.external_storage is not None))

    @activity.defn(name=HAS_ATTRIBUTES)
    async def has_attributes(self, argument: RawValue) -> RawValue:
        """Tell whether the namespace has Steporal's search attributes."""
        async with failing():
            return to_raw(await has_all(activity.client()))

    @activity.defn(name=SUBSCRIBE_RUN)
    async def subscribe(self, argument: RawValue) -> RawValue:
        """Subscribe a run to topics, and start those that there are not yet."""
        given = from_raw(argument)
        asked = Subscription.model_validate(given["subscription"])
        async with failing():
            parts = await Topics(activity.client()).subscribe(given["topics"], asked)
            # For those who read it in the history, which has no arguments of local activities.
            told = {"key": asked.key, "kind": asked.kind, "topics": given["topics"], "until": asked.until}
            return to_raw({**told, "parts": parts} if parts else told)

    @activity.defn(name=UNSUBSCRIBE_RUN)
    async def unsubscribe(self, argument: RawValue) -> RawValue:
        """End subscriptions of a run."""
        given = from_raw(argument)
        async with failing():
            topics = Topics(activity.client())
            await topics.unsubscribe(given["workflow_id"], given["run_id"], given["keys"])
            return to_raw(None)

    @activity.defn(name=OPEN_MAILBOX)
    async def open_mailbox(self, argument: RawValue) -> RawValue:
        """Open the mailbox of a wait for a signal, or tell who else waits; no mailbox if the signal is there."""
        asked = from_raw(argument)
        async with failing():
            wait, run_id = Wait.model_validate(asked["wait"]), ""
            if not asked.get("is_received"):
                held = await Mailboxes(activity.client()).open(wait, replace=asked["replace"])
                wait, run_id = held.wait, held.run_id
            # The step is for those who read it in the history.
            return to_raw({"run_id": run_id, "wait": wait.model_dump(mode="json"), "step": asked.get("step")})

    @activity.defn(name=CLOSE_MAILBOX)
    async def close_mailbox(self, argument: RawValue) -> RawValue:
        """Close the mailbox of a wait, and tell whether the wait has received its signal."""
        asked = from_raw(argument)
        async with failing():
            wait = Wait.model_validate(asked["wait"])
            return to_raw(await Mailboxes(activity.client()).close(wait, asked["run_id"]))

    @activity.defn(name=RELEASE_MAILBOXES)
    async def release_mailboxes(self, argument: RawValue) -> RawValue:
        """Tell the mailboxes of a run that the run ends."""
        waits = [Wait.model_validate(wait) for wait in from_raw(argument)["waits"]]
        async with failing():
            await Mailboxes(activity.client()).release(waits)
            return to_raw(None)

    @activity.defn(name=FIND_MAILBOX)
    async def find_mailbox(self, argument: RawValue) -> RawValue:
        """Find the open mailbox of a signal."""
        asked = from_raw(argument)
        call = asked.get("call")
        async with failing(call):
            held = await Mailboxes(activity.client()).find(asked["signal"])
            return to_raw(None if held is None else held.run_id, told(call))

    @activity.defn(name=SEND_SIGNAL)
    async def send_signal(self, argument: RawValue) -> RawValue:
        """Send a signal to a mailbox."""
        asked = from_raw(argument)
        call = asked.get("call")
        async with alive(), failing(call), counted():
            mailboxes = Mailboxes(activity.client())
            data = to_raw(asked["data"])
            return to_raw(await mailboxes.send(asked["signal"], asked["mailbox"], data, id=asked["id"]), told(call))

    @activity.defn(name=CHECK_SIGNAL)
    async def check_signal(self, argument: RawValue) -> RawValue:
        """Check a signal's data by the schema of the wait that is to receive it; return what is wrong, or null."""
        asked = from_raw(argument)
        async with failing():
            return to_raw(issues_of(asked["data"], asked["type"], self._client.step_packages))

    async def _call(self, step_id: str, function: Callable[..., Any], arguments: list[Any]) -> Any:
        if inspect.iscoroutinefunction(function):
            return await watched(step_id, function(*arguments))
        result = await self._threads.run(lambda: function(*arguments))
        return await watched(step_id, result) if inspect.isawaitable(result) else result

    def _captive(self, data: dict[str, JSON], call: dict[str, JSON]) -> Context[Any]:
        if data[TAG] != "context":
            raise UnserializableError(f"a value is tagged {data[TAG]!r}, which this version of steporal does not know")
        given = call["context"]
        workflow = self._client.get_workflow(call["workflow"])
        return Context(
            input=Input(
                self._input(workflow, given),
                given["id"],
                given["name"],
                datetime.fromisoformat(given["time"]),
                given["type"],
                InputExt(given["v"], given["cron"]),
            ),
            run_id=given["run_id"],
            max_attempts=workflow.max_attempts,
            ext=ContextExt(given["workflow_id"], activity.info().namespace or "", given["task_queue"]),
            surroundings=StepSurroundings(),
        )

    def _input(self, workflow: Workflow[Any, Any], given: dict[str, JSON]) -> Any:
        packages = self._client.step_packages
        if "input" in given:
            return decode(given["input"], packages=packages)
        return received(workflow.id, workflow.input_schema, given["data"], given["exact"], packages)


def _encoded_result(
    step_id: str,
    function: Callable[..., Any],
    result: Any,
    metadata: Mapping[str, bytes],
    packages: Collection[str],
) -> RawValue:
    converter = activity.client().data_converter
    what, most = f"the result of step {step_id!r}", most_with(converter)
    try:
        return to_limited(what, encode(result, secrets=lambda: encrypts(converter), packages=packages), most, metadata)
    except UnencryptedSecretError as err:
        raise UnencryptedSecretError(f"step {step_id!r} returned a value that cannot be sent: {err}") from None
    except UnserializableError as err:
        return to_limited(what, _typed(step_id, function, result, err), most, metadata)


def _typed(step_id: str, function: Callable[..., Any], result: Any, error: Exception) -> JSON:
    """What the annotated type writes, if it reads the same value from it."""
    dumped = dump_annotated(result, return_type(function))
    if dumped is not None:
        return {TAG: TYPED, "value": dumped[0]}
    raise UnserializableError(f"step {step_id!r} returned a value that cannot be sent: {error}") from None
