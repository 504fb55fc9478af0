"""Processes whose clock is wrong, by libfaketime, where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_SYSTEMS = "/usr/lib/*/faketime/libfaketime.so.1"
_PACKAGES = "vendor/libfaketime/src/libfaketime.so.1"


def library() -> Path | None:
    """The library, of the system or of the package ``libfaketime``; None if there is none."""
    found = list(Path("/").glob(_SYSTEMS.lstrip("/")))
    package = importlib.util.find_spec("libfaketime")
    if package is not None and package.origin is not None:
        found += Path(package.origin).parent.glob(_PACKAGES)
    return found[0] if found else None


def skewed(seconds: float) -> dict[str, str]:
    """The environment of a process whose clock is so many seconds ahead, or behind with less than none.

    Raises:
        LookupError: There is no libfaketime here.
    """
    path = library()
    if path is None:
        raise LookupError("there is no libfaketime here; pip install libfaketime, or let the clocks agree")
    # Timeouts are by the monotonic clock, which nobody can set.
    return {"LD_PRELOAD": str(path), "FAKETIME": f"{seconds:+f}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
