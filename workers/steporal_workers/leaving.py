"""End of a process, with its true exit status."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """End the process once its work is done.

    If Temporal's SDK was in use, this does not finalize the interpreter, for two reasons. Python 3.11 can abort during
    finalization (PyGILState_Release, exit status 134) if a thread of the SDK is just ending. And finalization would
    wait for the threads of steps that did not finish in time.
    """
    if "temporalio" not in sys.modules:
        sys.exit(status)
    atexit._run_exitfuncs()  # the user's libraries may have something to flush
    leave_at_once(status)


def leave_at_once(status: int) -> NoReturn:
    """End the process at once, whatever it is doing."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
