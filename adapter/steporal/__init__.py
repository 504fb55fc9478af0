"""Inngest-style durable workflows in Python, as native Temporal workflows."""

import importlib
from types import ModuleType

from temporalio.common import RetryPolicy

from .client import Client
from .context import Context, Input, InputExt
from .definition import FailedWith, RunFailure, WorkflowReference, reference
from .durations import Duration
from .errors import (
    AlreadyStartedError,
    CaptureError,
    ConnectError,
    DeadlockError,
    DefinitionError,
    EncryptionError,
    EventLoopError,
    EventTooLargeError,
    ForkError,
    InvalidArgumentError,
    InvalidEventError,
    InvalidInputError,
    InvalidResultError,
    InvokeTimeoutError,
    NestedStepError,
    NonRetryableError,
    NotInBodyError,
    PayloadTooLargeError,
    RetryAfterError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    SendEventError,
    SendSignalError,
    SignalConflictError,
    StepCodeNotFoundError,
    StepError,
    StepNotAwaitedError,
    SteporalError,
    TemporalCallError,
    UnencryptedSecretError,
    UnknownKeyError,
    UnknownStepError,
    UnknownWorkflowError,
    UnserializableError,
)
from .events import ReceivedEvent, SendEventResult, SentEvent, StartedRun
from .http import FetchResponse, Secret, secret
from .outbound.sinks import EventSink, InngestSink
from .public_names import publish
from .run_handle import Run
from .signals import ReceivedSignal, SendSignalResult
from .step import Listener, Step, StepExt
from .triggers import CronTrigger, EventTrigger, cron_trigger, event_trigger
from .workflow import CancelOn, Workflow, WorkflowExt

__version__ = "0.1.0"

__all__ = [
    "AlreadyStartedError",
    "CancelOn",
    "CaptureError",
    "Client",
    "ConnectError",
    "Context",
    "CronTrigger",
    "DeadlockError",
    "DefinitionError",
    "Duration",
    "EncryptionError",
    "EventLoopError",
    "EventSink",
    "EventTooLargeError",
    "EventTrigger",
    "FailedWith",
    "FetchResponse",
    "ForkError",
    "InngestSink",
    "Input",
    "InputExt",
    "InvalidArgumentError",
    "InvalidEventError",
    "InvalidInputError",
    "InvalidResultError",
    "InvokeTimeoutError",
    "Listener",
    "NestedStepError",
    "NonRetryableError",
    "NotInBodyError",
    "PayloadTooLargeError",
    "ReceivedEvent",
    "ReceivedSignal",
    "RetryAfterError",
    "RetryPolicy",
    "Run",
    "RunCancelledError",
    "RunFailedError",
    "RunFailure",
    "RunNotFoundError",
    "Secret",
    "SendEventError",
    "SendEventResult",
    "SendSignalError",
    "SendSignalResult",
    "SentEvent",
    "SignalConflictError",
    "StartedRun",
    "Step",
    "StepCodeNotFoundError",
    "StepError",
    "StepExt",
    "StepNotAwaitedError",
    "SteporalError",
    "TemporalCallError",
    "UnencryptedSecretError",
    "UnknownKeyError",
    "UnknownStepError",
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

publish(globals()[name] for name in __all__)

_MODULES = frozenset({"encryption", "lint"})
"""Public modules that are imported when they are first used: they take along what most programs do not need."""


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
