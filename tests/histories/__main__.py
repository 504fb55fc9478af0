"""``python -m histories``: record the histories of this version anew."""

from __future__ import annotations

import asyncio
import logging
import shutil

from http_server import HttpServer, http_server
from temporalio.client import WorkflowHistory
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from steporal_workers.leaving import leave

from . import app, scenes
from .files import SUFFIX, folder_of_this_version, last_word, write
from .stage import Receiver, serving, staged

EARLY = 40
"""The length of a history from which on the second server suggests to continue as new."""


async def record() -> dict[str, WorkflowHistory]:
    """Play all scenes; the histories, by the names of their files."""
    async with http_server() as http:
        http.default = Receiver()
        app.define_sinks(f"{http.url}/hook")
        return await _record_most(http) | await _record_long(http) | await _record_indexed(http)


async def _record_most(http: HttpServer) -> dict[str, WorkflowHistory]:
    async with staged(http, [app.shop, app.warehouse]) as stage:
        await asyncio.gather(*(scene(stage) for scene in scenes.TOGETHER))
        await scenes.lost_subscriber(stage)
        await scenes.gone_child(stage)
        await scenes.outlasting(stage)
        async with serving(app.audit, stage.temporal):
            await scenes.told_ends(stage)
        await scenes.registering(stage)
        return await stage.histories()


async def _record_long(http: HttpServer) -> dict[str, WorkflowHistory]:
    async with staged(http, [app.shop], f"limit.historyCount.suggestContinueAsNew={EARLY}") as stage:
        await asyncio.gather(scenes.long_runs(stage), scenes.crowd(stage), scenes.listed_often(stage))
        return await stage.histories()


async def _record_indexed(http: HttpServer) -> dict[str, WorkflowHistory]:
    async with staged(http, [app.shop], search_attributes=True) as stage:
        await asyncio.gather(scenes.indexed(stage), scenes.begun_with_steps(stage))
        return await stage.histories()


def main() -> None:
    """Replace the recordings of this version, once all have been made."""
    logging.disable()  # most of what is logged are the failures that are to be recorded
    quiet = LoggingConfig(TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=quiet)))
    histories = asyncio.run(record())
    folder = folder_of_this_version()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, history in sorted(histories.items()):
        write(folder / f"{name}{SUFFIX}", history)
        print(f"{name:40} {len(history.events):4} events, the last is {last_word(history)}")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{len(histories)} histories in {folder}: {size / 1024:,.0f} KiB")
    leave(0)


if __name__ == "__main__":
    main()
