"""Inngest-style durable workflows in Python, as native Temporal workflows."""

from temporalio.common import RetryPolicy

from .client import Client, Run
from .context import Context, Input
from .definition import Workflow, WorkflowReference, reference
from .durations import Duration
from .errors import (
    AlreadyStartedError,
    CaptureError,
    DefinitionError,
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
    StepCodeNotFoundError,
    StepError,
    SteporalError,
    UnknownWorkflowError,
    UnserializableError,
)
from .events import ReceivedEvent, SendEventResult, SentEvent
from .step import Step, StepExt
from .triggers import CronTrigger, EventTrigger, cron_trigger, event_trigger

__all__ = [
    "AlreadyStartedError",
    "CaptureError",
    "Client",
    "Context",
    "CronTrigger",
    "DefinitionError",
    "Duration",
    "EventTrigger",
    "Input",
    "InvalidArgumentError",
    "InvalidEventError",
    "InvalidInputError",
    "InvokeTimeoutError",
    "NestedStepError",
    "NonRetryableError",
    "PayloadTooLargeError",
    "ReceivedEvent",
    "RetryAfterError",
    "RetryPolicy",
    "Run",
    "RunCancelledError",
    "RunFailedError",
    "SendEventError",
    "SendEventResult",
    "SentEvent",
    "Step",
    "StepCodeNotFoundError",
    "StepError",
    "StepExt",
    "SteporalError",
    "UnknownWorkflowError",
    "UnserializableError",
    "Workflow",
    "WorkflowReference",
    "cron_trigger",
    "event_trigger",
    "reference",
]
