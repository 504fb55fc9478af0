"""`steporal sync` and `steporal catalog`."""

from __future__ import annotations

from collections.abc import Callable

from commands import Steporal

from steporal_workers.devserver import dev_server

WriteApp = Callable[[str], str]

REPORT = """
    @client.workflow(
        id=f"report-{APP}",
        triggers=[event_trigger("report.asked", if_exp="event.data.paid == true"), cron_trigger("0 9 * * MON-FRI"),
                  cron_trigger("@daily", timezone="Europe/Paris"), cron_trigger("@every 5m")],
    )
    async def report(ctx, step):
        return None
    """


CRONS = ("cron 0 9 * * MON-FRI (UTC)", "cron @daily (Europe/Paris)", "cron @every 5m ")


async def test_an_app_is_registered_without_a_worker(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(REPORT)
    synced = await run("sync", "app")
    assert synced.status == 0
    assert f"app {app} is registered in namespace 'default'" in synced.err
    catalog = await run("catalog")
    assert catalog.status == 0
    for shown in (app, f"report-{app}", "report.asked if event.data.paid == true", *CRONS):
        assert shown in synced.out
        assert shown in catalog.out
    assert f"steporal/{app}/report-{app}/" in catalog.out


async def test_the_catalog_is_there_as_json(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(REPORT)
    synced = (await run("sync", "app", "--json")).data
    catalog = (await run("catalog", "--json")).data
    [listed] = [listed for listed in catalog["apps"] if listed["id"] == app]
    assert listed == synced
    assert listed["task_queue"] == app
    assert listed["workflows"][0]["triggers"][0]["event"] == "report.asked"


async def test_an_app_without_workflows_is_forgotten(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(REPORT)
    await run("sync", "app")
    write_app("")
    assert "it was removed from the catalog" in (await run("sync", "app")).err
    assert app not in [listed["id"] for listed in (await run("catalog", "--json")).data["apps"]]


async def test_an_empty_catalog_says_how_to_fill_it(offline: Steporal) -> None:
    async with dev_server() as server:
        ended = await offline("catalog", "--address", server.address)
    assert ended.status == 0
    assert "no app is registered in namespace 'default'; start a worker, or `steporal sync module:client`" in ended.err
