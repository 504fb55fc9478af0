"""What `import steporal` offers."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

import steporal
from steporal import errors


def test_the_public_names_are_sorted_and_importable() -> None:
    assert list(steporal.__all__) == sorted(steporal.__all__)
    assert all(hasattr(steporal, name) for name in steporal.__all__)


def test_every_public_error_is_exported() -> None:
    assert set(errors.__all__) <= set(steporal.__all__)


@pytest.mark.parametrize("name", steporal.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    public = getattr(steporal, name)
    if name != "Duration":  # an alias
        assert public.__doc__


@pytest.mark.parametrize(
    "error",
    [
        steporal.StepError("charge", "ValueError", "no card", "a stack", 3),
        steporal.InvokeTimeoutError("invoke", "InvokeTimeoutError", "too long"),
        steporal.RetryAfterError("busy", "1h"),
        steporal.NonRetryableError("hopeless"),
        steporal.InvalidArgumentError("negative"),
        steporal.RunFailedError("order/1", "ValueError", "no card", "a stack"),
        steporal.RunCancelledError("order/1", "CancelledError", "cancelled"),
        steporal.SignalConflictError("wait", "SignalConflictError", "another run waits"),
        steporal.SendEventError("refused", ["a", "b"]),
        steporal.SendSignalError("refused"),
        steporal.UnknownStepError("no such step"),
        steporal.StepNotAwaitedError("forgotten"),
        steporal.NotInBodyError("outside alone"),
        steporal.DeadlockError("nothing can wake it"),
        steporal.RunNotFoundError("no such run"),
        steporal.DefinitionError("no"),
        steporal.InvalidEventError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_pickles(error: steporal.SteporalError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_every_error_is_a_steporal_error() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), steporal.SteporalError)


def test_who_only_sends_does_not_load_temporals_worker() -> None:
    loaded = "import sys, steporal; sys.exit(any(name.startswith('temporalio.worker') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0
