"""Signals: messages to the one run that waits for their name."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Literal

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar

from .errors import UnserializableError
from .types import JSON
from .values.readable import outward
from .values.type_names import shown, type_label

D = TypeVar("D", default=Any)

OnConflict = Literal["fail", "replace"]

MAX_SIGNAL_BYTES = 900
"""Limit of a signal's name in UTF-8: the name is part of a Temporal workflow id, which has at most 1,000 bytes."""


class ReceivedSignal(BaseModel, Generic[D]):
    """A signal as a run receives it.

    Attributes:
        signal: The signal's name.
        data: The data that was sent with it, validated by the wait's ``schema``; plain JSON without one.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    signal: str
    data: D


class SendSignalResult(BaseModel):
    """Outcome of sending a signal.

    Attributes:
        run_id: The id of the run that received it; None if no run waited.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    run_id: str | None


def check_signal(signal: object) -> str:
    """Return a valid signal name: any text that fits into a Temporal workflow id.

    Raises:
        TypeError: The name is not a string.
        ValueError: The name is empty, too long, or not valid Unicode.
    """
    if not isinstance(signal, str):
        raise TypeError(f"signal is {shown(signal)} ({type_label(type(signal))}); a signal's name is a string")
    if not signal.strip():
        raise ValueError(f"signal is {signal!r}; a signal's name cannot be empty")
    try:
        size = len(signal.encode())
    except UnicodeEncodeError:
        raise ValueError(f"signal is {signal!r}, which contains a lone surrogate, so it is not valid Unicode") from None
    if size > MAX_SIGNAL_BYTES:
        raise ValueError(f"signal {shown(signal)} has {size:,} bytes in UTF-8; a name has at most {MAX_SIGNAL_BYTES}")
    if "\0" in signal:
        raise ValueError(f"signal is {signal!r}; a name cannot contain a NUL")
    return signal


def check_on_conflict(on_conflict: object) -> OnConflict:
    """Return a valid policy for the case that another run already waits.

    Raises:
        ValueError: The value is neither ``"fail"`` nor ``"replace"``.
    """
    if on_conflict == "fail" or on_conflict == "replace":
        return on_conflict
    raise ValueError(f"on_conflict is {shown(on_conflict)}; it takes 'fail' or 'replace'")


def signal_data(signal: str, data: Any) -> JSON:
    """Return the data of a signal as JSON.

    Raises:
        UnserializableError: The data cannot be sent as JSON.
    """
    try:
        return outward(data)
    except UnserializableError as err:
        raise UnserializableError(f"the data of signal {signal!r} cannot be sent: {err}") from None
