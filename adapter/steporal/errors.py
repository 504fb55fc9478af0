"""Every error that Steporal raises.

::

    SteporalError
    ├── DefinitionError (ValueError)      a workflow, trigger or option that cannot be right
    ├── InvalidEventError (ValueError)    an event that cannot be sent
    │   └── EventTooLargeError            an event over the size that can be sent
    ├── TemporalCallError                 a client's call that Temporal refused, or did not answer
    │   ├── ConnectError                  there is no connection to Temporal
    │   │   └── ForkError                 the connection belongs to the process that this one was forked from
    │   ├── SendEventError                a call while events were sent
    │   └── SendSignalError               a call while a signal was sent
    ├── RunNotFoundError                  Temporal has no such run, or no longer
    ├── AlreadyStartedError               start_workflow(id=...): there is such a run already
    ├── UnknownWorkflowError              no app has registered such a workflow
    ├── RunFailedError                    Run.result(): the run failed, timed out or was terminated
    │   └── RunCancelledError             Run.result(): the run was cancelled
    ├── RetryAfterError                   raise it: try again after a given time
    ├── NonRetryableError                 raise it: do not try again
    │   ├── InvalidArgumentError          what a method was called with (a ValueError and a TypeError)
    │   │   └── UnknownStepError          a method that `step` does not have (an AttributeError)
    │   ├── EventLoopError (RuntimeError) a blocking method, called while an event loop is running
    │   ├── StepNotAwaitedError           a step that the body called without awaiting it
    │   ├── NotInBodyError                a call that only works outside the body of a workflow
    │   ├── DeadlockError                 a body that waits for something that cannot happen in a run
    │   ├── InvalidInputError             data that does not fit a schema
    │   ├── NestedStepError               a step called inside another step's function
    │   ├── CaptureError                  a step function that cannot be sent to a worker
    │   ├── InvalidResultError            a result that does not fit the type that is asked for
    │   ├── UnserializableError           a value that cannot be sent
    │   │   └── UnencryptedSecretError    a secret, where payloads are not encrypted
    │   └── PayloadTooLargeError          a value over Temporal's payload limit
    ├── StepCodeNotFoundError             this worker's code has no such step function (another's may)
    ├── EncryptionError                   a value that cannot be decrypted
    │   └── UnknownKeyError               its key is not known to this process (another's may be)
    └── StepError                         what ``await step.run(...)`` raises when a step has failed
        ├── InvokeTimeoutError            an invoked workflow took longer than its ``timeout``
        └── SignalConflictError           another run waits for the signal already

All of them pickle, and all of them pass through Temporal's failure converter: its ``type`` is the class's name.
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
    """The base of all errors of this package."""


class DefinitionError(SteporalError, ValueError):
    """A workflow, trigger or option that cannot be right; raised where it is defined."""


class InvalidEventError(SteporalError, ValueError):
    """An event that cannot be sent; the message names the field. Nothing has been sent."""


class EventTooLargeError(InvalidEventError):
    """An event over the size that can be sent."""


class TemporalCallError(SteporalError):
    """A call of a client that Temporal refused, or did not answer.

    ``__cause__`` is the error of Temporal's SDK, such as ``temporalio.service.RPCError``.
    """


class ConnectError(TemporalCallError):
    """There is no connection to Temporal: the server does not answer, or the configuration is not valid."""


class ForkError(ConnectError):
    """The connection was made in the process that this one was forked from; Temporal's SDK does not survive a fork.

    Connect after the fork: in a hook of the server, such as gunicorn's ``post_fork``, or on first use. A client that
    was never connected in the parent works in a child.
    """


class SendEventError(TemporalCallError):
    """Temporal refused events, or could not be reached.

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
    """Temporal refused a signal or could not be reached, or no worker answered; a run may have received it or not."""


class AlreadyStartedError(SteporalError):
    """There is, or was within Temporal's retention, a run with the workflow id that ``start_workflow`` was given."""


class CatalogFullError(SteporalError):
    """An app's list that is too large to register, or that the namespace's catalog has no room for."""


class NotInForceError(SteporalError):
    """An app's list that was not registered, as another one of the same app is in force."""


class UnknownWorkflowError(SteporalError):
    """No app in the namespace has registered such a workflow."""


class RunNotFoundError(SteporalError):
    """No run has this workflow id: none was started with it, or Temporal's retention has removed the run."""


class RunFailedError(SteporalError):
    """A run that did not complete, as ``await run.result()`` raises it.

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
    """Raise it in a step or in a body to choose when the next attempt starts.

    Args:
        message: What went wrong.
        retry_after: A duration, or an aware ``datetime``; one in the past means at once.

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
        """How long to wait from ``now``; never negative."""
        return delay_of(self.retry_after, now=now)

    def __str__(self) -> str:
        return self.message


class NonRetryableError(SteporalError):
    """Raise it in a step to fail the step at once, in a body to fail the run at once."""


class InvalidArgumentError(NonRetryableError, ValueError, TypeError):
    """What a method was called with, such as a negative duration. A run whose step it was fails at once."""


class EventLoopError(NonRetryableError, RuntimeError):
    """A blocking method, such as ``client.send_event_sync``, was called in a thread with a running event loop."""


class UnknownStepError(InvalidArgumentError, AttributeError):
    """A method that ``step`` or ``step.ext`` does not have."""


class StepNotAwaitedError(NonRetryableError):
    """The body returned without awaiting a step that it had called. The step did not run, and the run fails."""


class NotInBodyError(NonRetryableError):
    """The body of a workflow called something that only works outside, such as ``client.send_event``.

    Nothing was done. The message names the step that does the same.
    """


class DeadlockError(NonRetryableError):
    """The body waits for something that cannot happen in a run, and no step, sleep or event is left to wake it."""


class InvalidInputError(NonRetryableError):
    """Data that does not fit a schema; the message lists pydantic's issues."""


class NestedStepError(NonRetryableError):
    """A step called inside another step's function."""


class CaptureError(NonRetryableError):
    """A step function that cannot be sent to a worker, or a variable of it that cannot."""


class InvalidResultError(NonRetryableError):
    """The result of a run that does not fit the type that its reader asks for; the message lists pydantic's issues."""


class UnserializableError(NonRetryableError):
    """A value that cannot be sent; the message has the path of the part that cannot, and its type."""


class UnencryptedSecretError(UnserializableError):
    """A value with a ``SecretStr`` or the like, where payloads are not encrypted: Temporal would store it in clear."""


class PayloadTooLargeError(NonRetryableError):
    """A value over the size that Temporal stores in one payload."""


class StepCodeNotFoundError(SteporalError):
    """This worker's code has no such step function.

    The attempt is retried, as a worker with that code may exist. When attempts are used up in that, the step begins
    again with the code that its run has then: it has not failed, it has not begun.
    """


class EncryptionError(SteporalError):
    """A value that cannot be decrypted."""


class UnknownKeyError(EncryptionError):
    """A value is encrypted with a key that this process does not have.

    No run fails by it: workflow tasks are tried again until a worker has the key, and steps begin again.

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
    """A step that has failed for good: its last attempt raised, or an attempt said not to retry.

    Attributes:
        step_id: The step's id, with its index if the id was used before in the run.
        name: The name of the class of the error that the last attempt raised.
        message: Its message.
        stack: Its stack trace, as text.
        attempts: How many attempts were made, when known; else 0.
        cause: The error as Temporal delivered it, where this run still has it.
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
        """The error as Temporal delivered it, where this run still has it."""
        return self.__cause__

    def __str__(self) -> str:
        tries = f" after {self.attempts} attempt{'s' * (self.attempts != 1)}" if self.attempts else ""
        return f"step {self.step_id!r} failed{tries}: {self.name}: {self.message}"


class InvokeTimeoutError(StepError):
    """An invoked workflow took longer than its ``timeout``. The invoked run goes on."""


class SignalConflictError(StepError):
    """Another run waits for the signal already; the message names both."""
