"""`steporal lint`."""

from __future__ import annotations

import pytest
from commands import Steporal

APP = """
    import time
    import steporal

    client = steporal.Client("shop")

    @client.workflow(id="order")
    async def order(ctx, step):
        return await step.run("now", lambda: time.time())
    """
BROKEN = """
    import time
    import steporal

    client = steporal.Client("shop")

    @client.workflow(id="order")
    async def order(ctx, step):
        started = time.time()
        await step.run("work", print, started)
    """


async def test_an_app_that_is_right_ends_with_0(offline: Steporal) -> None:
    offline.write("app.py", APP)
    ended = await offline("lint", "app:client")
    assert (ended.status, ended.out) == (0, "")
    assert "1 workflow of app 'shop': nothing found" in ended.err


async def test_each_finding_is_a_line_with_the_place_and_what_to_write_instead(offline: Steporal) -> None:
    offline.write("app.py", BROKEN)
    ended = await offline("lint", "app")
    assert ended.status == 1
    assert ended.out == ("app.py:9: workflow 'order' calls time.time; use ctx.now(), or put it in a step.run(...)\n")
    assert "1 finding" in ended.err
    assert "# steporal: ignore" in ended.err


async def test_findings_are_there_as_json(offline: Steporal) -> None:
    path = offline.write("app.py", BROKEN)
    ended = await offline("lint", "app:client", "--json")
    assert ended.status == 1
    assert ended.err == ""
    assert ended.data == [
        {
            "file": str(path),
            "line": 9,
            "workflow": "order",
            "does": "calls time.time",
            "instead": "use ctx.now(), or put it in a step.run(...)",
            "called_from": [],
            "is_warning": False,
        }
    ]
    offline.write("right.py", APP)
    assert (await offline("lint", "right", "--json")).data == []


@pytest.mark.parametrize("flags", [(), ("--json",)])
async def test_an_app_without_workflows_is_a_mistake(offline: Steporal, flags: tuple[str, ...]) -> None:
    offline.write("crm.py", "import steporal\nclient = steporal.Client('crm')\n")
    ended = await offline("lint", "crm:client", *flags)
    assert (ended.status, ended.out) == (2, "")
    assert "app 'crm' has no workflows once 'crm' is imported, so there is nothing to check" in ended.err
    assert "name the module that imports the modules with its workflows" in ended.err


@pytest.mark.parametrize("arguments", [(), ("missing:client",), ("app:nothing",), ("app:client", "--jsn")])
async def test_a_command_that_cannot_be_right_ends_with_2(offline: Steporal, arguments: tuple[str, ...]) -> None:
    offline.write("app.py", BROKEN)
    assert (await offline("lint", *arguments)).status == 2
