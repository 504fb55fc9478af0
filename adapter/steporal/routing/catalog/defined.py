"""List of an app, made from its definitions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...app import App
from ...definition import Definition
from ...triggers import EventTrigger, Trigger
from . import schedules
from .listing import AppList, Entry, Listed


def list_of(app: App) -> AppList:
    """Return the list that an app registers."""
    handlers = (workflow.handler for workflow in app.workflows.values())
    defined = AppList(
        id=app.id,
        task_queue=app.task_queue,
        modules=tuple(sorted({module_of(handler) for handler in handlers})),
        workflows=tuple(map(_listed, app.definitions())),
    )
    return defined.model_copy(update={"schedules": tuple(sorted(schedules.starts_of(defined)))})


def module_of(handler: Callable[..., Any]) -> str:
    """Return the module that defines a handler; for a script, with the name of its file."""
    code = getattr(handler, "__code__", None)
    if handler.__module__ == "__main__" and code is not None:
        return f"__main__ of {Path(code.co_filename).name}"
    return handler.__module__


def _listed(definition: Definition) -> Listed:
    entries = (_entry(trigger, is_bridge=definition.is_bridge) for trigger in definition.triggers)
    return Listed(id=definition.id, triggers=tuple(entries))


def _entry(trigger: Trigger, *, is_bridge: bool) -> Entry:
    if isinstance(trigger, EventTrigger):
        return Entry(event=trigger.event, if_exp=trigger.if_exp, bridge=is_bridge)
    jitter = None if trigger.jitter is None else trigger.jitter.total_seconds()
    return Entry(cron=trigger.schedule, timezone=trigger.timezone, jitter=jitter)
