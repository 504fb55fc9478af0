"""Errors that Steporal raises.

::

    SteporalError
    ├── DefinitionError (ValueError)      a workflow, trigger or option that is not valid
    ├── InvalidEventError (ValueError)    an event that cannot be sent
    │   └── EventTooLargeError            an event over the size limit
    ├── TemporalCallError                 a client's call that Temporal rejected or did not answer
    │   ├── ConnectError                  no connection to Temporal
    │   │   └── ForkError                 the connection was made before this process was forked
    │   ├── SendEventError                a call while events were sent
    │   └── SendSignalError               a call while a signal was sent
    ├── RunNotFoundError                  Temporal has no run with this id, or has already deleted it
    ├── AlreadyStartedError               start_workflow(id=...): a run with this id already exists
    ├── UnknownWorkflowError              no app has registered this workflow
    ├── RunFailedError                    Run.result(): the run failed, timed out or was terminated
    │   └── RunCancelledError             Run.result(): the run was cancelled
    ├── RetryAfterError                   raise it: try again after a given time
    ├── NonRetryableError                 raise it: do not try again
    │   ├── InvalidArgumentError          an argument that is not valid (a ValueError and a TypeError)
    │   │   └── UnknownStepError          a method that `step` does not have (an AttributeError)
    │   ├── EventLoopError (RuntimeError) a blocking method, called while an event loop is running
    │   ├── StepNotAwaitedError           a step that the body called without awaiting it
    │   ├── NotInBodyError                a call that only works outside the body of a workflow
    │   ├── DeadlockError                 a body that waits for something that cannot happen in a run
    │   ├── InvalidInputError             data that does not fit its schema
    │   ├── NestedStepError               a step called inside another step's function
    │   ├── CaptureError                  a step function that cannot be sent to a worker
    │   ├── InvalidResultError            a result that does not fit the requested type
    │   ├── UnserializableError           a value that cannot be sent
    │   │   └── UnencryptedSecretError    a secret, where payloads are not encrypted
    │   └── PayloadTooLargeError          a value over Temporal's payload limit
    ├── StepCodeNotFoundError             a step function that this worker's code does not contain (another's may)
    ├── EncryptionError                   a value that cannot be decrypted
    │   └── UnknownKeyError               a value whose key this process does not have (another may)
    └── StepError                         ``await step.run(...)``: the step failed
        ├── InvokeTimeoutError            an invoked workflow took longer than its ``timeout``
        └── SignalConflictError           another run already waits for the signal

All of them pickle, and all of them survive Temporal's failure converter, with the class's name as ``type``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from .durations import Duration, check_delay, delay_of

__all__ = [
    "AlreadyStartedError",
    "CaptureError",
    "ConnectError",
    "DeadlockError",
    "DefinitionError",
    "EncryptionError",
    "EventLoopError",
    "EventTooLargeError",
    "ForkError",
    "InvalidArgumentError",
    "InvalidEventError",
    "InvalidInputError",
    "InvalidResultError",
    "InvokeTimeoutError",
    "NestedStepError",
    "NonRetryableError",
    "NotInBodyError",
    "PayloadTooLargeError",
    "RetryAfterError",
    "RunCancelledError",
    "RunFailedError",
    "RunNotFoundError",
    "SendEventError",
    "SendSignalError",
    "SignalConflictError",
    "StepCodeNotFoundError",
    "StepError",
    "StepNotAwaitedError",
    "SteporalError",
    "TemporalCallError",
    "UnencryptedSecretError",
    "UnknownKeyError",
    "UnknownStepError",
    "UnknownWorkflowError",
    "UnserializableError",
]


class SteporalError(Exception):
    """Base class of all errors of this package."""


class DefinitionError(SteporalError, ValueError):
    """A workflow, trigger or option that is not valid; raised where it is defined."""


class InvalidEventError(SteporalError, ValueError):
    """An event that cannot be sent; the message names the field. Nothing has been sent."""


class EventTooLargeError(InvalidEventError):
    """An event over the size limit."""


class TemporalCallError(SteporalError):
    """A client's call that Temporal rejected or did not answer.

    ``__cause__`` is the error of Temporal's SDK, such as ``temporalio.service.RPCError``.
    """


class ConnectError(TemporalCallError):
    """No connection to Temporal: the server does not answer, or the configuration is not valid."""


class ForkError(ConnectError):
    """A connection made before this process was forked; Temporal's SDK does not survive a fork.

    Connect after the fork: in a server hook, such as gunicorn's ``post_fork``, or on first use. A client that
    was never connected in the parent works in a child.
    """


class SendEventError(TemporalCallError):
    """Temporal rejected events, or could not be reached.

    ``ids`` are the ids of all events of the call, in order; sending the same events again with
    these ids starts nothing twice.
    """

    def __init__(self, message: str, ids: Sequence[str] = ()) -> None:
        super().__init__(message, tuple(ids))
        self.message = message
        self.ids: tuple[str, ...] = tuple(ids)

    def __str__(self) -> str:
        return self.message


class SendSignalError(TemporalCallError):
    """Temporal rejected a signal or could not be reached, or no worker answered; a run may have received the signal."""


class AlreadyStartedError(SteporalError):
    """A run with the workflow id passed to ``start_workflow`` exists, or existed within Temporal's retention."""


class CatalogFullError(SteporalError):
    """An app's list that is too large to register, or that exceeds the capacity of the namespace's catalog."""


class NotInForceError(SteporalError):
    """An app's list that was not registered because another list of the same app is in force."""


class UnknownWorkflowError(SteporalError):
    """A workflow that no app in the namespace has registered."""


class RunNotFoundError(SteporalError):
    """A workflow id that no run has: none was started with it, or Temporal's retention has removed the run."""


class RunFailedError(SteporalError):
    """A run that did not complete; raised by ``await run.result()``.

    Attributes:
        workflow_id: Temporal's workflow id of the run.
        name: The name of the class of the error that ended the run.
        message: The message of that error.
        stack: The stack trace of that error, as text: the lines of the handler.
        attempts: The number of attempts of the body; 0 if unknown.
        step: The step whose failure ended the run; its ``stack`` has the lines of the step's function. None if the
            body raised the error itself.
    """

    def __init__(
        self,
        workflow_id: str,
        name: str,
        message: str,
        stack: str = "",
        attempts: int = 0,
        step: StepError | None = None,
    ) -> None:
        super().__init__(workflow_id, name, message, stack, attempts, step)
        self.workflow_id = workflow_id
        self.name = name
        self.message = message
        self.stack = stack
        self.attempts = attempts
        self.step = step
        if lines := (step.stack if step is not None and step.stack else stack):
            self.add_note(lines)

    def __str__(self) -> str:
        return f"run {self.workflow_id!r} failed: {self.name}: {self.message}"


class RunCancelledError(RunFailedError):
    """A run that was cancelled."""

    def __str__(self) -> str:
        return f"run {self.workflow_id!r} was cancelled"


class RetryAfterError(SteporalError):
    """Raise it in a step or a body to choose when the next attempt starts.

    Args:
        message: What went wrong.
        retry_after: A duration, or an aware ``datetime``; a time in the past means at once.

    Raises:
        InvalidArgumentError: ``retry_after`` is neither, is negative, or is naive.
    """

    def __init__(self, message: str, retry_after: Duration | datetime) -> None:
        try:
            check_delay(retry_after, what="retry_after of RetryAfterError")
        except (TypeError, ValueError) as err:
            raise InvalidArgumentError(str(err)) from None
        super().__init__(message, retry_after)
        self.message = message
        self.retry_after = retry_after

    def delay(self, now: datetime) -> timedelta:
        """Return the time to wait from ``now``; never negative."""
        return delay_of(self.retry_after, now=now)

    def __str__(self) -> str:
        return self.message


class NonRetryableError(SteporalError):
    """Raise it in a step to fail the step at once, or in a body to fail the run at once."""


class InvalidArgumentError(NonRetryableError, ValueError, TypeError):
    """An argument that is not valid, such as a negative duration. In a step call, it fails the run at once."""


class EventLoopError(NonRetryableError, RuntimeError):
    """A blocking method, such as ``client.send_event_sync``, called in a thread with a running event loop."""


class UnknownStepError(InvalidArgumentError, AttributeError):
    """A method that ``step`` or ``step.ext`` does not have."""


class StepNotAwaitedError(NonRetryableError):
    """A step that the body called without awaiting it before it returned. The step did not run, and the run fails."""


class NotInBodyError(NonRetryableError):
    """A call in the body of a workflow that only works outside, such as ``client.send_event``.

    Nothing was done. The message names the step that does the same.
    """


class DeadlockError(NonRetryableError):
    """A body that waits for something that cannot happen in a run, with no step, sleep or event left to wake it."""


class InvalidInputError(NonRetryableError):
    """Data that does not fit its schema; the message lists pydantic's issues."""


class NestedStepError(NonRetryableError):
    """A step called inside another step's function."""


class CaptureError(NonRetryableError):
    """A step function that cannot be sent to a worker, or that captures a variable that cannot be sent."""


class InvalidResultError(NonRetryableError):
    """The result of a run that does not fit the type its reader requested; the message lists pydantic's issues."""


class UnserializableError(NonRetryableError):
    """A value that cannot be sent; the message contains the path and the type of the offending part."""


class UnencryptedSecretError(UnserializableError):
    """A value that contains a secret, such as a ``SecretStr``, where payloads are not encrypted."""


class PayloadTooLargeError(NonRetryableError):
    """A value over the size limit of one Temporal payload."""


class StepCodeNotFoundError(SteporalError):
    """A step function that this worker's code does not contain.

    The attempt is retried, because another worker may have that code. If this uses up the attempts, the step did not
    fail, as it never began: it begins again with the code that its run has at that time.
    """


class EncryptionError(SteporalError):
    """A value that cannot be decrypted."""


class UnknownKeyError(EncryptionError):
    """A value encrypted with a key that this process does not have.

    The error does not fail runs: workflow tasks are retried until a worker has the key, and steps begin again.

    Attributes:
        key_id: The key's id.
    """

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id

    def __str__(self) -> str:
        return (
            f"a value is encrypted with key {self.key_id!r}, which this process does not have; add the key to "
            "STEPORAL_ENCRYPTION_KEYS or STEPORAL_DECRYPTION_KEYS"
        )


class StepError(SteporalError):
    """A step that has failed for good: its last attempt raised, or an attempt raised an error that is not retried.

    Attributes:
        step_id: The step's id, with its index if the id was used before in the run.
        name: The name of the class of the error that the last attempt raised.
        message: The message of that error.
        stack: The stack trace of that error, as text.
        attempts: The number of attempts that were made; 0 if unknown.
        cause: The error as Temporal delivered it, if this run still has it.
    """

    def __init__(self, step_id: str, name: str, message: str, stack: str = "", attempts: int = 0) -> None:
        super().__init__(step_id, name, message, stack, attempts)
        self.step_id = step_id
        self.name = name
        self.message = message
        self.stack = stack
        self.attempts = attempts

    @property
    def cause(self) -> BaseException | None:
        """Error as Temporal delivered it, if this run still has it."""
        return self.__cause__

    def __str__(self) -> str:
        tries = f" after {self.attempts} attempt{'s' * (self.attempts != 1)}" if self.attempts else ""
        return f"step {self.step_id!r} failed{tries}: {self.name}: {self.message}"


class InvokeTimeoutError(StepError):
    """An invoked workflow took longer than its ``timeout``. The invoked run continues."""


class SignalConflictError(StepError):
    """Another run already waits for the signal; the message names both runs."""
