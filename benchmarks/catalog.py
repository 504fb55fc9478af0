"""The catalog with ten thousand workflows of a thousand apps: what reading it costs, by what is sent.

``python -m benchmarks.catalog`` starts a dev server of its own and prints a table.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable

from temporalio.client import Client
from temporalio.common import RawValue

import steporal
from steporal.routing.catalog.arbiter import Order
from steporal.routing.catalog.listing import AppList, Entry, Listed
from steporal.routing.catalog.placing import Placing
from steporal.routing.catalog.reading import Catalog
from steporal.routing.catalog.registering import Registrar, Source
from steporal.routing.catalog.shard_store import Shards, without_converter
from steporal.routing.catalog.shards import SHARDS, apps_in, parts_of, shard_id, size_of
from steporal.rpc import bounded
from steporal.values.converter import to_raw
from steporal.wire.names import SHARD, SHARDS_TASK_QUEUE
from steporal.worker.serving import registry_worker, system_worker
from steporal_workers.devserver import dev_server

IF_EXP = "event.data.amount > 100 && event.data.region == 'eu'"
ROUNDS = 10


def app(number: int, workflows: int) -> AppList:
    """An app each of whose workflows starts on an event of its own; every tenth on a pattern."""
    listed = []
    for n in range(workflows):
        event = f"team{number}.*" if n % 10 == 9 else f"team{number}.thing{n}.happened"
        listed.append(Listed(id=f"app{number}-workflow{n}", triggers=(Entry(event=event, if_exp=IF_EXP),)))
    return AppList(id=f"app-{number}", task_queue=f"app-{number}", workflows=tuple(listed))


async def fill(temporal: Client, apps: Iterable[AppList]) -> None:
    """Start the shards with what they hold of apps, without the workers that would place it one by one."""
    memos: dict[int, dict[str, RawValue]] = {number: {} for number in range(SHARDS)}
    for listed in apps:
        for number, part in parts_of(listed).items():
            memos[number][f"app:{listed.id}"] = to_raw(part.model_dump(mode="json", exclude_defaults=True))
    for number, memo in memos.items():
        await without_converter(temporal).start_workflow(
            SHARD, id=shard_id(number), task_queue=SHARDS_TASK_QUEUE, memo=memo
        )


async def placing(temporal: Client, apps: Iterable[AppList]) -> float:
    """Place lists of apps, as their workflows do; how long one took."""
    took = []
    for listed in apps:
        began = time.perf_counter()
        await Placing(temporal, Order(app=listed, generation=1)).run()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


async def measured(read: Callable[[], Awaitable[object]]) -> str:
    """Milliseconds of a call, and of the processor's time in it, as medians."""
    took, spent = [], []
    for _ in range(ROUNDS):
        began, cpu = time.perf_counter(), _processor_time()
        await read()
        took.append(time.perf_counter() - began)
        spent.append(_processor_time() - cpu)
    return f"{statistics.median(took) * 1000:.1f} | {statistics.median(spent) * 1000:.1f}"


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def rows(temporal: Client, apps: int, workflows: int) -> list[str]:
    """The table's rows."""
    await fill(temporal, (app(number, workflows) for number in range(apps)))
    memos = await bounded(Shards(temporal).read, range(SHARDS))
    sizes = [size_of(apps_in(memo)) for memo in memos]
    catalog = Catalog(temporal)
    names = [f"team{n % apps}.thing{n % 9}.happened" for n in range(100)]
    snapshot = await catalog.read_all()
    assert len(snapshot.workflows) == apps * workflows
    event = {"name": names[0], "data": {"amount": 101, "region": "eu"}}
    assert len((await catalog.read([names[0]])).matches(event)) == 2
    took = await placing(temporal, (app(number, workflows) for number in range(apps, apps + 10)))
    client = steporal.Client("confirms", temporal=temporal)
    client.workflow(id="w", triggers=[steporal.event_trigger("team1.thing1.happened")])(_handler)
    registrar = Registrar(client.app, client.temporal, Source.of(client.app))
    async with registry_worker(temporal, client.id, "bench"):
        await registrar.confirm()
        confirming = await measured(registrar.confirm)
    return [
        f"| placing an app's list | {took * 1000:.1f} | |",
        f"| a shard: {min(sizes):,} to {max(sizes):,} bytes | | |",
        f"| first reading of all {SHARDS} shards | {await measured(lambda: Catalog(temporal).read_all())} |",
        f"| reading again for one event | {await measured(lambda: catalog.read([names[0]], fresh=True))} |",
        f"| reading again for 100 events of 100 names | {await measured(lambda: catalog.read(names, fresh=True))} |",
        f"| within two seconds of that | {await measured(lambda: catalog.read(names))} |",
        f"| candidates of one event | {await measured(lambda: _candidates(catalog, names[0]))} |",
        f"| a worker's confirmation, nothing changed | {confirming} |",
    ]


async def _candidates(catalog: Catalog, name: str) -> object:
    return (await catalog.read([name])).candidates(name)


async def _handler(ctx: steporal.Context[object], step: steporal.Step) -> None: ...


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--apps", type=int, default=1_000)
    parser.add_argument("--workflows", type=int, default=10, help="of each app")
    given = parser.parse_args()
    async with dev_server(ui=False) as server, system_worker(server.client):
        print(f"{given.apps:,} apps with {given.workflows} workflows each\n")
        print("| | ms | ms of processor time |\n|---|---|---|")
        print("\n".join(await rows(server.client, given.apps, given.workflows)))


if __name__ == "__main__":
    asyncio.run(main())
