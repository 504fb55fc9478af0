"""Inngest-style durable workflows in Python, as native Temporal workflows."""

from temporalio.common import RetryPolicy

from .client import Client, Run
from .context import Context, Input
from .definition import (
    CancelOn,
    FailedWith,
    RunFailure,
    Workflow,
    WorkflowExt,
    WorkflowReference,
    reference,
)
from .durations import Duration
from .errors import (
    AlreadyStartedError,
    CaptureError,
    DefinitionError,
    EventTooLargeError,
    InvalidArgumentError,
    InvalidEventError,
    InvalidInputError,
    InvokeTimeoutError,
    NestedStepError,
    NonRetryableError,
    PayloadTooLargeError,
    RetryAfterError,
    RunCancelledError,
    RunFailedError,
    SendEventError,
    SendSignalError,
    SignalConflictError,
    StepCodeNotFoundError,
    StepError,
    SteporalError,
    UnknownWorkflowError,
    UnserializableError,
)
from .events import ReceivedEvent, SendEventResult, SentEvent
from .http import FetchResponse, Secret, secret
from .signals import ReceivedSignal, SendSignalResult
from .sinks import EventSink, InngestSink
from .step import Listener, Step, StepExt
from .triggers import CronTrigger, EventTrigger, cron_trigger, event_trigger

__all__ = [
    "AlreadyStartedError",
    "CancelOn",
    "CaptureError",
    "Client",
    "Context",
    "CronTrigger",
    "DefinitionError",
    "Duration",
    "EventSink",
    "EventTooLargeError",
    "EventTrigger",
    "FailedWith",
    "FetchResponse",
    "InngestSink",
    "Input",
    "InvalidArgumentError",
    "InvalidEventError",
    "InvalidInputError",
    "InvokeTimeoutError",
    "Listener",
    "NestedStepError",
    "NonRetryableError",
    "PayloadTooLargeError",
    "ReceivedEvent",
    "ReceivedSignal",
    "RetryAfterError",
    "RetryPolicy",
    "Run",
    "RunCancelledError",
    "RunFailedError",
    "RunFailure",
    "Secret",
    "SendEventError",
    "SendEventResult",
    "SendSignalError",
    "SendSignalResult",
    "SentEvent",
    "SignalConflictError",
    "Step",
    "StepCodeNotFoundError",
    "StepError",
    "StepExt",
    "SteporalError",
    "UnknownWorkflowError",
    "UnserializableError",
    "Workflow",
    "WorkflowExt",
    "WorkflowReference",
    "cron_trigger",
    "event_trigger",
    "reference",
    "secret",
]
