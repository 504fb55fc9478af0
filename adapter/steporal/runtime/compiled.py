"""A workflow as a Temporal workflow class, which the worker registers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue

from ..errors import InvalidInputError, UnknownKeyError
from ..sdk.any_arguments import of_any_count
from ..types import JSON
from ..values.converter import to_raw
from ..wire.names import CHECKPOINT, DELIVER, ENDED, RECOVER, REPORT, SIGNALLED, START_SIGNAL
from ..wire.run_state import RunState, read_recovery, read_run_state
from ..wire.start import argument_json
from ..workflow import Workflow
from ..workflow_kinds import of_kind
from .attempt import Attempt
from .inbox import read_delivery
from .run import Run

Take = Callable[[Run, JSON], None]
"""Function by which a run receives a signal."""

_NONE = to_raw(None)  # what a foreign client leaves out


_compiled: dict[str, tuple[Workflow[Any, Any], type]] = {}


def workflow_class(definition: Workflow[Any, Any]) -> type:
    """Return the Temporal workflow class of a workflow."""
    name = _class_name(definition)
    known, compiled = _compiled.get(name, (None, None))
    if compiled is None or known is not definition:
        compiled = _compile(name, definition)
        _compiled[name] = definition, compiled
    return compiled


def is_watched(definition: Workflow[Any, Any]) -> bool:
    """Return whether the bodies of a workflow are watched: not those of handlers that a function makes."""
    return "<locals>" not in definition.handler.__qualname__


def _deliver(run: Run, delivered: JSON) -> None:
    if delivery := read_delivery(delivered, workflow.info().first_execution_run_id):
        run.inbox.deliver(*delivery)
        run.continuing.size.event_arrived()


def _message_json(message: RawValue) -> JSON:
    """Return the JSON of a signal; None if it cannot be read."""
    try:
        return argument_json(message, "a signal")
    except InvalidInputError:
        return None


def _recovered(run: Run, carried: RunState) -> Run | None:
    """A run that begins with what its history has shown; None if somebody has made that up."""
    try:
        return run.recovered(carried)
    except Exception as err:
        workflow.logger.warning("the run was started with something that it cannot read: %r", err)
        return None


def _first(definition: Workflow[Any, Any], carried: RawValue) -> tuple[Run, InvalidInputError | None]:
    """A run as it begins, and why it is to fail at once, where what it is to go on with is made up."""
    what = f"the state of a run of workflow {definition.id!r}"
    try:
        return Run(definition, Attempt, read_run_state(argument_json(carried, what))), None
    except InvalidInputError as err:
        refusal = err
    except UnknownKeyError:
        raise
    except Exception as err:
        refusal = InvalidInputError(f"{what} cannot be read: {type(err).__name__}: {str(err)[:200]}")
    return Run(definition, Attempt), refusal


def _split_arguments(data: RawValue, added: RawValue) -> tuple[JSON, JSON, InvalidInputError | None]:
    """The input of a run and what its starter has added, and why the run is to fail, where one cannot be read."""
    try:
        return argument_json(data, "the input"), argument_json(added, "the second argument of the run"), None
    except InvalidInputError as err:
        return None, None, err


def _class_name(definition: Workflow[Any, Any]) -> str:
    words = "".join(c if c.isascii() and c.isalnum() else "_" for c in definition.id)
    digest = hashlib.sha256(f"{definition.app}\0{definition.id}".encode()).hexdigest()[:12]
    return f"W_{words}_{digest}"


def _compile(name: str, definition: Workflow[Any, Any]) -> type:
    class Compiled:
        @workflow.init
        def __init__(self, data: RawValue = _NONE, added: RawValue = _NONE, carried: RawValue = _NONE) -> None:
            # Before any signal is handled: what comes first may be for a wait of the execution before.
            self.execution, self._refusal = _first(definition, carried)
            self._early: list[tuple[Take, JSON]] | None = []

        async def run(self, data: RawValue = _NONE, added: RawValue = _NONE, carried: RawValue = _NONE) -> RawValue:
            self._early = None
            input, more, refusal = _split_arguments(data, added)
            return await self.execution.execute(input, more, self._refusal or refusal)

        def _take(self, take: Take, message: RawValue) -> None:
            json = _message_json(message)
            if self._early is not None:
                self._early.append((take, json))
            take(self.execution, json)

        @workflow.signal(name=RECOVER, description="What the run has done, by its history.")
        @of_any_count
        def recover(self, message: RawValue) -> None:
            """Begin with it; the signals that it does not know come after it."""
            recovery = None if self._early is None else read_recovery(_message_json(message))
            if self._early is None or recovery is None:
                return
            carried, known = recovery
            if (recovered := _recovered(self.execution, carried)) is not None:
                self.execution = recovered
                for take, json in self._early[known:]:
                    take(self.execution, json)

        @workflow.signal(name=START_SIGNAL, description="An event was sent again that has started this run.")
        @of_any_count
        def event(self, message: RawValue) -> None:
            """Nothing to do: the run was started by it."""
            self._take(lambda run, json: None, _NONE)

        @workflow.signal(name=DELIVER, description="An event that the run waits for.")
        @of_any_count
        def deliver(self, message: RawValue) -> None:
            """Put it into the inbox, if it is for this run."""
            self._take(_deliver, message)

        @workflow.signal(name=SIGNALLED, description="A signal that this run waits for.")
        @of_any_count
        def signalled(self, delivery: RawValue) -> None:
            """Take it, for the step that waits for it."""
            self._take(lambda run, json: run.signals.receive(json), delivery)

        @workflow.signal(name=REPORT, description="Requests a report of this run's end, for the run that invoked it.")
        @of_any_count
        def report(self, parent: RawValue) -> None:
            """Remember it."""
            self._take(lambda run, json: run.children.report_to(json), parent)

        @workflow.signal(name=ENDED, description="A run that this one has invoked has ended.")
        @of_any_count
        def ended(self, message: RawValue) -> None:
            """Take its outcome, for the step that waits for it."""
            self._take(lambda run, json: run.children.has_ended(json, run.waits), message)

        @workflow.signal(name=CHECKPOINT, description="Park at the next safe point.")
        @of_any_count
        def checkpoint(self, message: RawValue) -> None:
            """Hold steps that have not begun, until the run can continue as new."""
            self._take(lambda run, json: run.parked.checkpoint(json), message)

    Compiled.__module__ = __name__
    of_kind("run")(Compiled)
    Compiled.__name__ = name
    Compiled.__qualname__ = name
    Compiled.run.__qualname__ = f"{name}.run"
    Compiled.__doc__ = definition.__doc__
    workflow.run(Compiled.run)
    return workflow.defn(name=definition.id, sandboxed=is_watched(definition))(Compiled)
