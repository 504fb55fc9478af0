"""List that an app registers: its workflows with their triggers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ...validation import MAX_ID_BYTES


def _checked(id: str) -> str:
    size = len(id.encode(errors="surrogatepass"))
    if not id.strip() or size > MAX_ID_BYTES or "\0" in id or id.startswith("steporal."):
        raise ValueError("the id is not valid in Temporal, or is reserved for Steporal")
    return id


Id = Annotated[str, AfterValidator(_checked)]
"""Id that a client may have. Temporal would reject others, and with them requests that concern more than one app."""


class Entry(BaseModel):
    """A trigger in an app's list.

    Attributes:
        timezone: The time zone of a cron schedule; None for UTC.
        jitter: Seconds by which the starts of a cron schedule are spread.
        bridge: Whether it forwards events to another system, and so ignores events from there.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    event: str | None = None
    if_exp: str | None = None
    cron: str | None = None
    timezone: str | None = None
    jitter: float | None = Field(default=None, allow_inf_nan=False)
    bridge: bool = False


class Listed(BaseModel):
    """A workflow in an app's list."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    id: Id
    triggers: tuple[Entry, ...] = ()


class AppList(BaseModel):
    """List that an app registers.

    Attributes:
        modules: The modules that define the app's workflows.
        schedules: The ids of its schedules.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    id: Id
    task_queue: Id
    modules: tuple[str, ...] = ()
    workflows: tuple[Listed, ...] = ()
    schedules: tuple[str, ...] = ()

    def events(self) -> Iterator[tuple[Listed, Entry]]:
        """Yield the triggers for events, each with its workflow."""
        for listed in self.workflows:
            for entry in listed.triggers:
                if entry.event is not None:
                    yield listed, entry
