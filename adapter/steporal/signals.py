"""Signals: messages to the one run that waits for their name."""

from __future__ import annotations

from typing import Any, Generic, Literal

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar

D = TypeVar("D", default=Any)

OnConflict = Literal["fail", "replace"]


class ReceivedSignal(BaseModel, Generic[D]):
    """A signal as a run receives it.

    Attributes:
        signal: Its name.
        data: What was sent with it, validated by the wait's ``schema``; plain JSON without one.
    """

    model_config = ConfigDict(frozen=True)

    signal: str
    data: D


class SendSignalResult(BaseModel):
    """What sending a signal returns.

    Attributes:
        run_id: The id of the run that received it; None if none waited.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str | None
