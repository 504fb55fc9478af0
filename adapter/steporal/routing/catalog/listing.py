"""What an app registers: its workflows, with their triggers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ...validation import MAX_ID_BYTES


def _checked(id: str) -> str:
    size = len(id.encode(errors="surrogatepass"))
    if not id.strip() or size > MAX_ID_BYTES or "\0" in id or id.startswith("steporal."):
        raise ValueError("Temporal takes no such id, or it is one of Steporal's own")
    return id


Id = Annotated[str, AfterValidator(_checked)]
"""An id that a client may have. Temporal would refuse others, and with them what concerns more than one app."""


class Entry(BaseModel):
    """A trigger in an app's list.

    Attributes:
        timezone: The time zone of a cron schedule; UTC if there is none.
        jitter: Seconds by which the starts of a cron schedule are spread.
        bridge: Whether it forwards events to another system, from which some have come.
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
    """List of what an app registers.

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
