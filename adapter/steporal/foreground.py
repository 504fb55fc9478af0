"""The lookup behind ``client.run()``: the worker process belongs to the command line, which this package never imports.

``steporal_workers`` depends on this package, and needs click and rich, which a process that only sends events does not.
So the module is named here, and imported when ``run()`` is called.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import threading
from types import FrameType
from typing import NoReturn

from temporalio import workflow

from .errors import DefinitionError

_SERVER = "steporal_workers.foreground"


def serve(client: object, task_queue: str, caller: FrameType | None) -> NoReturn:
    """Serve a client's workflows until a signal stops the worker, and end the process.

    Args:
        client: The client.
        task_queue: Its task queue, for messages.
        caller: The frame that called ``client.run()``.

    Raises:
        DefinitionError: A module calls it while it is imported.
        RuntimeError: It is called inside a running event loop, or in a thread.
        ModuleNotFoundError: The extra ``cli`` is not installed.
    """
    _check_place(task_queue, caller)
    try:
        server = importlib.import_module(_SERVER)
    except ModuleNotFoundError as err:
        raise ModuleNotFoundError(
            f"client.run() needs {err.name!r}, which is not installed: pip install 'steporal[cli]'", name=err.name
        ) from None
    server.run(client)
    raise AssertionError("the server has ended the process")


def _check_place(task_queue: str, caller: FrameType | None) -> None:
    module = caller.f_globals.get("__name__") if caller is not None and caller.f_code.co_name == "<module>" else None
    if workflow.unsafe.in_sandbox() or module not in (None, "__main__"):
        raise DefinitionError(
            f"client.run() is called while module {module!r} is imported, as every worker imports it; put the call "
            "under `if __name__ == '__main__':`"
        )
    instead = f"use a worker there: Worker(temporal, task_queue={task_queue!r}, plugins=[client.plugin()])"
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(f"client.run() must be called in the main thread, which receives signals; {instead}")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"client.run() starts an event loop, and is called inside one; {instead}")


def caller() -> FrameType | None:
    """Return the frame that called the function that calls this one."""
    frame = inspect.currentframe()
    called = frame.f_back if frame is not None else None
    return called.f_back if called is not None else None
