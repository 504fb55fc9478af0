"""What a run has done, read from its history without its code.

A run whose code was edited in a way that does not fit its history is stuck: no worker can replay it. What it has done
is all in its history, though, and can be handed to a new execution as if the old one had continued as new.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure as FailureMessage
from temporalio.api.history.v1 import HistoryEvent
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.exceptions import FailureError

from ..converter import from_raw
from ..outbound.fetching import FETCH
from ..routing.mailbox import SIGNALLED, Wait
from ..types import JSON
from .attempt import RUN_STEP
from .carried import Carried, outcome_json, read_carried
from .children import ENDED, REPORT, was_cancelled
from .compiled import START_SIGNAL
from .continuing import CHECKPOINT, RECOVER
from .endings import SEND_EVENT
from .failures import CODE_NOT_FOUND, failure_of, is_cancellation
from .inbox import DELIVER, Box, Inbox
from .memo import Failure, Outcome
from .signal_inbox import CLOSE_MAILBOX, OPEN_MAILBOX, conflict, summary_of_close, summary_of_open
from .signal_steps import FIND_MAILBOX, SEND_SIGNAL
from .subscriptions import SUBSCRIBE_RUN
from .waits import BACKOFF, BACKOFF_AFTER, Kind, Waiting, is_of_no_step

STEPS = frozenset({RUN_STEP, SEND_EVENT, SEND_SIGNAL, FETCH})
"""The activities whose outcome is a step's."""

SIGNALS = frozenset({START_SIGNAL, DELIVER, SIGNALLED, REPORT, ENDED, CHECKPOINT})
"""The signals that a run takes."""

_LOCAL_ACTIVITY = "core_local_activity"
"""The marker of a local activity, by Temporal's core."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a history says of a run.

    Attributes:
        run_id: The run's id: that of its first execution.
        carried: What another execution can go on with.
        signals: How many of the signals in the history are in that.
        first_task: The event with which the first workflow task was completed; None if none was, and nothing is lost.
        last_event: The last event of the history.
        in_flight: The steps that had begun, and whose end is not in the history.
        children: The invoked runs whose end is not in the history, by Temporal's workflow id.
    """

    run_id: str
    carried: Carried
    signals: int
    first_task: int | None
    last_event: int
    in_flight: tuple[str, ...]
    children: tuple[str, ...]

    def message(self) -> dict[str, JSON]:
        """The signal that hands it to another execution."""
        return {"carried": from_raw(self.carried.raw()), "signals": self.signals}


async def rebuild(events: Sequence[HistoryEvent], converter: DataConverter) -> Rebuilt:
    """Read the history of an execution.

    Args:
        events: All of it, in order.
        converter: Of the client that the run's workers have.
    """
    reader = _Reader(converter)
    for event in events:
        await reader.read(event)
    return reader.rebuilt(events[-1].event_id)


@dataclass(slots=True)
class _Activity:
    """An activity of a step.

    Attributes:
        key: The step's.
        type: The activity's.
        max_attempts: How often it is tried.
        result: What it has returned.
    """

    key: str
    type: str
    max_attempts: int
    result: Any = None


@dataclass(slots=True)
class _Signals:
    """The waits for signals, as :class:`~.signal_inbox.SignalInbox` hands them on.

    Attributes:
        open: Those whose mailbox may be open, by their key, with Temporal's run id of the mailbox.
        steps: The steps' keys, by theirs.
        over: Those that have ended.
        received: What has come for those that have not.
    """

    open: dict[str, tuple[Wait, str]] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    over: dict[str, None] = field(default_factory=dict)
    received: dict[str, JSON] = field(default_factory=dict)


class _Reader:
    """Follows a history from event to event; what happens between two workflow tasks counts when the second is done."""

    def __init__(self, converter: DataConverter) -> None:
        self._converter = converter
        self._run_id = ""
        self._workflow_id = ""
        self._taken = 0
        self._early: list[tuple[str, JSON]] = []  # the signals before the run begins, which a recovery takes back
        self._first_task: int | None = None
        self._task_began = 0.0
        self._activities: dict[int, _Activity] = {}
        self._timers: dict[int, tuple[str, float]] = {}
        self._fired: list[str] = []
        self._timed_out: set[str] = set()
        self._cancelled: set[str] = set()
        self._finished: list[tuple[str, Outcome]] = []
        self._sending: dict[str, list[_Activity]] = {}
        self._sent: dict[str, int] = {}
        self._begin(Carried(is_parked=False, started=0, seed=""))

    def _begin(self, carried: Carried) -> None:
        """Go on from what an execution before has handed over."""
        self._carried = carried
        self._memo = dict(carried.memo)
        self._waits = {
            key: Waiting(waiting["kind"], waiting["until"], waiting["more"])
            for key, (_, waiting) in carried.waits.items()
        }
        self._inbox = Inbox()
        self._inbox.restore(carried.boxes)
        self._once = {key for key in carried.boxes if self._kind(key) == "event"}
        self._cancelling = dict(carried.cancelling)
        self._scheduled = dict(carried.scheduled)
        self._failures = carried.failures
        self._ended = dict(carried.ended)
        self._invoked = dict.fromkeys(carried.invoked)
        self._reports_to = list(carried.reports_to)
        self._signals = _Signals()
        state = carried.signals
        mailboxes = {
            waiting.more["wait"]["key"]: (key, str(waiting.more["mailbox"]))
            for key, waiting in self._waits.items()
            if waiting.kind == "signal"
        }
        for data in state.get("waits", ()):
            wait = Wait.model_validate(data)
            step, mailbox = mailboxes.get(wait.key, (wait.key, ""))
            self._signals.open[wait.key] = (wait, mailbox)
            self._signals.steps[wait.key] = step
        self._signals.over = dict.fromkeys(state.get("over", ()))
        self._signals.received = dict(state.get("received", {}))
        self._attempt_began: int | None = carried.attempt_began or None

    # --- what is rebuilt ---------------------------------------------------------------------------------------

    def rebuilt(self, last_event: int) -> Rebuilt:
        self._settle_sends()
        for key, outcome in self._finished:
            self._remember(key, outcome)
        in_flight = [*(activity.key for activity in self._activities.values()), *self._sending]
        carried = self._carried.model_copy(
            update={
                "is_parked": False,
                "held_until": None,
                "attempt_began": self._attempt_began or 0,
                "memo": self._memo,
                "failures": self._failures,
                "scheduled": self._scheduled,
                "waits": {key: (False, waiting.json()) for key, waiting in self._all_waits().items()},
                "boxes": self._inbox.state(),
                "cancelling": self._cancelling,
                "signals": {
                    "waits": [wait.model_dump(mode="json") for wait, _ in self._signals.open.values()],
                    "over": sorted(self._signals.over),
                    "received": self._signals.received,
                },
                "ended": self._ended,
                "invoked": list(self._invoked),
                "reports_to": self._reports_to,
            }
        )
        children = [child for child in self._children() if child not in self._ended]
        return Rebuilt(
            self._run_id,
            carried,
            self._taken,
            self._first_task,
            last_event,
            tuple(dict.fromkeys(in_flight)),
            tuple(dict.fromkeys(children)),
        )

    def _all_waits(self) -> dict[str, Waiting]:
        waits = {key: waiting for key, waiting in self._waits.items() if key not in self._memo}
        for key, until in self._timers.values():
            if key not in waits and key not in self._memo and key not in self._signals.steps and not is_of_no_step(key):
                waits[key] = Waiting("event" if key in self._once else "timer", until)
        for key, (wait, mailbox) in self._signals.open.items():
            step = self._signals.steps[key]
            if mailbox and step not in self._memo:
                more = {"wait": wait.model_dump(mode="json"), "mailbox": mailbox}
                waits[step] = Waiting("signal", wait.until, more)
        return waits

    def _children(self) -> Iterable[str]:
        yield from self._invoked
        for key, waiting in self._waits.items():
            if waiting.kind == "invoke" and key not in self._memo:
                yield waiting.more["child"]

    # --- events ------------------------------------------------------------------------------------------------

    async def read(self, event: HistoryEvent) -> None:
        kind = event.WhichOneof("attributes")
        handle: Callable[[HistoryEvent], Coroutine[Any, Any, None]] | None = getattr(self, f"_{kind}", None)
        if handle is not None:
            await handle(event)

    async def _workflow_execution_started_event_attributes(self, event: HistoryEvent) -> None:
        started = event.workflow_execution_started_event_attributes
        self._run_id = started.first_execution_run_id
        self._workflow_id = started.workflow_id
        values = [await self._json(payload) for payload in started.input.payloads]
        carried = read_carried(values[2]) if len(values) > 2 else None
        if carried is None or not carried.seed:
            moment = event.event_time.ToDatetime(tzinfo=UTC).timestamp()
            carried = carried or Carried(is_parked=False, started=0, seed="")
            carried = carried.model_copy(update={"started": int(moment * 1000)})
        self._begin(carried)

    async def _workflow_task_scheduled_event_attributes(self, event: HistoryEvent) -> None:
        self._settle_sends()

    async def _workflow_task_started_event_attributes(self, event: HistoryEvent) -> None:
        self._task_began = _seconds(event.event_time)

    async def _workflow_task_completed_event_attributes(self, event: HistoryEvent) -> None:
        if self._first_task is None:
            self._first_task = event.event_id
            self._attempt_began = self._attempt_began or self._since_start(self._task_began)
        self._settle()

    # --- signals -----------------------------------------------------------------------------------------------

    async def _workflow_execution_signaled_event_attributes(self, event: HistoryEvent) -> None:
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name == RECOVER:
            if self._first_task is None:
                self._recover(await self._json(signal.input.payloads[0]))
        elif signal.signal_name in SIGNALS:
            message = await self._json(signal.input.payloads[0]) if signal.input.payloads else None
            self._taken += 1
            if self._first_task is None:
                self._early.append((signal.signal_name, message))
            self._signal(signal.signal_name, message)

    def _recover(self, message: Any) -> None:
        """What an earlier recovery has handed to this execution."""
        carried = read_carried(message["carried"])
        assert carried is not None
        self._begin(carried)
        for name, said in self._early[message["signals"] :]:
            self._signal(name, said)

    def _signal(self, name: str, message: Any) -> None:
        if not isinstance(message, dict):
            return
        if name == REPORT:
            if message not in self._reports_to:
                self._reports_to.append(message)
        elif message.get("run_id") != self._run_id:
            return
        elif name == DELIVER:
            self._inbox.deliver(message["key"], message["event"])
        elif name == ENDED:
            self._ended[message["child"]] = message["outcome"]
        elif name == SIGNALLED:
            self._signalled(message)

    def _signalled(self, message: dict[str, Any]) -> None:
        key = message["key"]
        if key not in self._signals.over:
            self._signals.received.setdefault(key, message.get("data"))

    # --- activities --------------------------------------------------------------------------------------------

    async def _activity_task_scheduled_event_attributes(self, event: HistoryEvent) -> None:
        scheduled = event.activity_task_scheduled_event_attributes
        key = await self._summary(event)
        kind = scheduled.activity_type.name
        if key is None or not self._is_of_step(key, scheduled.activity_id, kind):
            return
        self._count(key)
        attempts = scheduled.retry_policy.maximum_attempts
        activity = self._activities[event.event_id] = _Activity(key, kind, attempts)
        if kind == SEND_EVENT:
            self._sending.setdefault(key, []).append(activity)

    async def _activity_task_completed_event_attributes(self, event: HistoryEvent) -> None:
        completed = event.activity_task_completed_event_attributes
        activity = self._activities.pop(completed.scheduled_event_id, None)
        if activity is None:
            return
        result = await self._json(completed.result.payloads[0]) if completed.result.payloads else None
        if activity.type == SEND_EVENT:
            activity.result = result
        else:
            self._finished.append((activity.key, Outcome(result)))

    async def _activity_task_failed_event_attributes(self, event: HistoryEvent) -> None:
        failed = event.activity_task_failed_event_attributes
        await self._activity_failed(failed.scheduled_event_id, failed.failure)

    async def _activity_task_timed_out_event_attributes(self, event: HistoryEvent) -> None:
        timed_out = event.activity_task_timed_out_event_attributes
        await self._activity_failed(timed_out.scheduled_event_id, timed_out.failure)

    async def _activity_failed(self, scheduled: int, failure: FailureMessage) -> None:
        activity = self._activities.pop(scheduled, None)
        if activity is not None:
            self._sending.pop(activity.key, None)
            outcome = await self._failed(failure, activity.max_attempts)
            if outcome.failure is not None and outcome.failure.name != CODE_NOT_FOUND:
                self._finished.append((activity.key, outcome))

    async def _activity_task_canceled_event_attributes(self, event: HistoryEvent) -> None:
        canceled = event.activity_task_canceled_event_attributes
        activity = self._activities.pop(canceled.scheduled_event_id, None)
        if activity is not None:
            self._sending.pop(activity.key, None)

    async def _marker_recorded_event_attributes(self, event: HistoryEvent) -> None:
        marker = event.marker_recorded_event_attributes
        if marker.marker_name != _LOCAL_ACTIVITY:
            return
        told = await self._json(marker.details["data"].payloads[0])
        key = await self._summary(event) or ""
        kind, activity_id = told["activity_type"], told["activity_id"]
        result = None
        if not marker.HasField("failure"):
            result = await self._json(marker.details["result"].payloads[0])
        if kind == SUBSCRIBE_RUN and isinstance(result, dict):
            self._subscribed(result)
        elif kind == OPEN_MAILBOX and isinstance(result, dict):
            self._opened(key, result)
        elif kind == CLOSE_MAILBOX and isinstance(result, bool):
            self._closed(key, is_received=result)
        elif kind == FIND_MAILBOX and result is None and not marker.HasField("failure"):
            self._finished.append((key, Outcome()))
        elif self._is_of_step(key, activity_id, kind):
            self._count(key)
            if marker.HasField("failure"):
                outcome = await self._failed(marker.failure, told["attempt"])
                if outcome.failure is not None and outcome.failure.name != "CancelledError":
                    self._finished.append((key, outcome))
            else:
                self._finished.append((key, Outcome(result)))

    def _is_of_step(self, key: str, activity_id: str, kind: str) -> bool:
        return kind in STEPS and (activity_id == key or activity_id.startswith(f"{key}#"))

    def _count(self, key: str) -> None:
        self._scheduled[key] = self._scheduled.get(key, 0) + 1

    # --- waits for events and signals --------------------------------------------------------------------------

    def _subscribed(self, told: dict[str, Any]) -> None:
        key, topics = told["key"], tuple(told["topics"])
        if told["kind"] == "cancel":
            self._cancelling[key] = list(topics)
            return
        if told["kind"] == "once":
            self._once.add(key)
            self._cancelled.discard(key)
            self._inbox.boxes[key] = Box(topics, told["until"])
        else:
            self._inbox.open(key, topics, told["until"])

    def _opened(self, text: str, told: dict[str, Any]) -> None:
        """A mailbox that was opened, or was found to be another wait's; ``text`` says for which wait."""
        other = Wait.model_validate(told["wait"])
        is_ours = other.run_id == self._run_id and summary_of_open(other) == text
        key = other.key if is_ours else text.removeprefix(summary_of_open(other.model_copy(update={"key": ""})))
        if key not in self._signals.steps:
            step = self._signals.steps[key] = self._step_of_wait(key)
            self._count(step)
        if is_ours:
            self._signals.open[key] = (other, told["run_id"])
        elif other.run_id != self._run_id or (other.key in self._signals.open and other.key not in self._cancelled):
            wait = other.model_copy(update={"workflow_id": self._workflow_id, "run_id": self._run_id, "key": key})
            self._signals.over[key] = None
            self._finished.append((self._signals.steps[key], Outcome(failure=conflict(wait, other))))

    def _step_of_wait(self, key: str) -> str:
        """The step of a wait, whose key has a number where the step has waited before."""
        step, mark, number = key.rpartition("#")
        return step if mark and number.isdecimal() and self._scheduled.get(step, 0) == int(number) - 1 else key

    def _closed(self, text: str, *, is_received: bool) -> None:
        """A mailbox that was closed; without a signal, its wait is over: its time, or the wait was cancelled."""
        for key, (wait, _) in list(self._signals.open.items()):
            if summary_of_close(wait) == text and not is_received:
                del self._signals.open[key]
                self._signals.over[key] = None
                self._signals.received.pop(key, None)
                if key in self._timed_out:
                    self._finished.append((self._signals.steps[key], Outcome()))

    # --- timers ------------------------------------------------------------------------------------------------

    async def _timer_started_event_attributes(self, event: HistoryEvent) -> None:
        lasts = event.timer_started_event_attributes.start_to_fire_timeout
        until = _seconds(event.event_time) + lasts.ToNanoseconds() / 1e9
        text = await self._summary(event)
        if text is None:
            return
        self._timers[event.event_id] = (text, until)
        self._cancelled.discard(text)
        if text.startswith(BACKOFF_AFTER):
            self._failures = int(text.removeprefix(BACKOFF_AFTER).split()[0])
            self._waits[BACKOFF] = Waiting("backoff", until)

    async def _timer_fired_event_attributes(self, event: HistoryEvent) -> None:
        timer = self._timers.pop(event.timer_fired_event_attributes.started_event_id, None)
        if timer is not None:
            self._fired.append(timer[0])

    async def _timer_canceled_event_attributes(self, event: HistoryEvent) -> None:
        timer = self._timers.pop(event.timer_canceled_event_attributes.started_event_id, None)
        if timer is not None:
            self._cancelled.add(timer[0])

    # --- invoked runs ------------------------------------------------------------------------------------------

    async def _start_child_workflow_execution_initiated_event_attributes(self, event: HistoryEvent) -> None:
        self._invoked[event.start_child_workflow_execution_initiated_event_attributes.workflow_id] = None

    async def _start_child_workflow_execution_failed_event_attributes(self, event: HistoryEvent) -> None:
        self._invoked.pop(event.start_child_workflow_execution_failed_event_attributes.workflow_id, None)

    async def _child_workflow_execution_completed_event_attributes(self, event: HistoryEvent) -> None:
        completed = event.child_workflow_execution_completed_event_attributes
        result = await self._json(completed.result.payloads[0]) if completed.result.payloads else None
        self._child_ended(completed, Outcome(result))

    async def _child_workflow_execution_failed_event_attributes(self, event: HistoryEvent) -> None:
        failed = event.child_workflow_execution_failed_event_attributes
        self._child_ended(failed, await self._failed(failed.failure, 0))

    async def _child_workflow_execution_canceled_event_attributes(self, event: HistoryEvent) -> None:
        self._child_ended(event.child_workflow_execution_canceled_event_attributes, was_cancelled())

    async def _child_workflow_execution_terminated_event_attributes(self, event: HistoryEvent) -> None:
        failure = Failure("TerminatedError", "the run was terminated")
        self._child_ended(event.child_workflow_execution_terminated_event_attributes, Outcome(failure=failure))

    async def _child_workflow_execution_timed_out_event_attributes(self, event: HistoryEvent) -> None:
        failure = Failure("TimeoutError", "the run exceeded a timeout of Temporal's")
        self._child_ended(event.child_workflow_execution_timed_out_event_attributes, Outcome(failure=failure))

    def _child_ended(self, attributes: Any, outcome: Outcome) -> None:
        self._ended[attributes.workflow_execution.workflow_id] = outcome_json(outcome)

    # --- what a workflow task has made of it -------------------------------------------------------------------

    def _settle(self) -> None:
        """A workflow task is done: what had come before it, the body has seen."""
        for key in self._fired:
            self._timer_is_over(key)
        self._settle_events()
        self._settle_signals()
        for key, outcome in self._finished:
            self._remember(key, outcome)
        self._fired.clear()
        self._finished.clear()
        self._sent = {
            key: len(batches)
            for key, batches in self._sending.items()
            if all(batch.result is not None for batch in batches)
        }

    def _settle_events(self) -> None:
        for key in list(self._once):
            box = self._inbox.boxes.get(key)
            if key in self._cancelled:
                self._inbox.close(key)
                self._once.discard(key)
            elif box is not None and box.events:
                self._end_wait(key, Outcome(box.events[0]))

    def _settle_signals(self) -> None:
        for key, data in list(self._signals.received.items()):
            if key in self._signals.open:
                wait, _ = self._signals.open.pop(key)
                self._signals.over[key] = None
                del self._signals.received[key]
                outcome = Outcome({"signal": wait.signal, "data": data})
                self._finished.append((self._signals.steps[key], outcome))

    def _settle_sends(self) -> None:
        """Steps that send events are finished when the workflow task after a batch has begun no further one."""
        for key, count in self._sent.items():
            batches = self._sending.get(key, [])
            if len(batches) == count:
                self._remember(key, Outcome([id for batch in batches for id in batch.result["ids"]]))
                del self._sending[key]
        self._sent.clear()

    def _timer_is_over(self, text: str) -> None:
        if text.startswith(BACKOFF_AFTER):
            self._waits.pop(BACKOFF, None)
            self._attempt_began = self._since_start(self._task_began)
        elif text in self._signals.steps:
            self._timed_out.add(text)
        elif is_of_no_step(text):
            return
        elif text in self._once:
            box = self._inbox.boxes.get(text)
            self._end_wait(text, Outcome(box.events[0] if box and box.events else None))
        elif self._kind(text) != "invoke":
            self._finished.append((text, Outcome()))

    def _end_wait(self, key: str, outcome: Outcome) -> None:
        self._finished.append((key, outcome))
        self._inbox.close(key)
        self._once.discard(key)

    def _kind(self, key: str) -> Kind | None:
        waiting = self._waits.get(key)
        return None if waiting is None else waiting.kind

    def _remember(self, key: str, outcome: Outcome) -> None:
        if key not in self._memo:
            self._memo[key] = (outcome_json(outcome), self._since_start(self._task_began))
        self._waits.pop(key, None)
        self._failures = 0

    def _since_start(self, moment: float) -> int:
        return max(math.floor(moment * 1_000_000) - self._carried.started * 1000, 0)

    # --- values ------------------------------------------------------------------------------------------------

    async def _json(self, payload: Payload) -> Any:
        (raw,) = await self._converter.decode([payload], [RawValue])
        if raw.payload.metadata.get("encoding") != b"json/plain":
            return self._converter.payload_converter.from_payload(raw.payload)
        return from_raw(raw)

    async def _summary(self, event: HistoryEvent) -> str | None:
        metadata = event.user_metadata
        if not metadata.HasField("summary"):
            return None
        (text,) = await self._converter.decode([metadata.summary], [str])
        return str(text)

    async def _failed(self, failure: FailureMessage, max_attempts: int) -> Outcome:
        error = await self._converter.decode_failure(failure)
        if is_cancellation(error):
            return was_cancelled()
        assert isinstance(error, FailureError)
        return Outcome(failure=failure_of(error, max_attempts))


def _seconds(moment: Timestamp) -> float:
    return moment.ToNanoseconds() / 1e9
