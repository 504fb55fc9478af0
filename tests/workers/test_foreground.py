"""`client.run()`: a module that is started as a program is a worker."""

from __future__ import annotations

import signal
from textwrap import dedent

import pytest
from commands import Steporal

HEAD = """
    import steporal
    from pydantic import BaseModel

    client = steporal.Client({app!r})
    """
SHOP = """
    class Order(BaseModel):
        n: int

    def charge(order):
        return Order(n=order.n + 1)

    @client.workflow(id="order-{app}", input_schema=Order)
    async def order(ctx, step):
        charged = await step.run("charge", charge, ctx.input.data)
        return await step.run("pack", lambda: charge(charged).n)
    """
RUN = """
    if __name__ == "__main__":
        client.run()
    """


def write(run: Steporal, app: str, *parts: str, name: str = "shop.py") -> None:
    run.write(name, "".join(dedent(part.replace("{app!r}", repr(app)).replace("{app}", app)) for part in parts))


async def result(run: Steporal, app: str) -> object:
    ended = await run("start", f"order-{app}", "--input", '{"n": 1}', "--wait")
    assert ended.status == 0, ended.err
    return ended.data


@pytest.mark.parametrize("arguments", [("shop.py",), ("-m", "shop"), ("-m", "package.shop")])
async def test_a_program_serves_its_workflows_until_ctrl_c(
    run: Steporal, app_id: str, arguments: tuple[str, ...]
) -> None:
    write(run, app_id, HEAD, SHOP, RUN)
    write(run, app_id, HEAD, SHOP, RUN, name="package/shop.py")
    run.write("package/__init__.py", "")
    async with run.running_python(*arguments) as program:
        await program.until(f"serving app {app_id}")
        assert await result(run, app_id) == 3
        program.signal(signal.SIGINT)
        ended = await program.ended()
    assert (ended.status, ended.err.endswith("stopped\n")) == (0, True)


async def test_a_program_and_a_worker_of_the_same_module_run_each_others_steps(run: Steporal, app_id: str) -> None:
    write(run, app_id, HEAD, SHOP, RUN)
    async with run.running_python("shop.py") as program:
        await program.until(f"serving app {app_id}")
        started = await run("start", f"order-{app_id}", "--input", '{"n": 1}', "--wait", "--json")
        history = await run("runs", "show", started.data["workflow_id"], "--json")
        assert [step["state"] for step in history.data["steps"]] == ["completed", "completed"]
        program.signal(signal.SIGTERM)
        assert (await program.ended()).status == 0
    async with run.worker("shop:client"):
        rerun = await run("runs", "rerun", started.data["workflow_id"], "--from", "pack")
        assert (await run("runs", "result", rerun.out.strip(), "--wait")).data == 3


async def test_its_bodies_run_in_the_sandbox(run: Steporal, app_id: str) -> None:
    clock = """
    import time

    @client.workflow(id="clock-{app}")
    async def clock(ctx, step):
        return time.time()
    """
    write(run, app_id, HEAD, clock, RUN)
    async with run.running_python("shop.py") as program:
        await program.until(f"serving app {app_id}")
        await run("start", f"clock-{app_id}")
        await program.until("calls time.time")


async def test_a_program_whose_workflow_modules_import_it_serves_their_workflows(run: Steporal, app_id: str) -> None:
    write(run, app_id, HEAD, "\nimport orders\n", RUN)
    write(run, app_id, "\nfrom pydantic import BaseModel\nfrom shop import client\n", SHOP, name="orders.py")
    async with run.running_python("shop.py") as program:
        await program.until(f"order-{app_id}")
        assert await result(run, app_id) == 3


async def test_a_program_defines_workflows_on_a_client_of_another_module(run: Steporal, app_id: str) -> None:
    write(run, app_id, HEAD, name="app.py")
    write(run, app_id, "\nfrom pydantic import BaseModel\nfrom app import client\n", SHOP, RUN)
    async with run.running_python("shop.py") as program:
        await program.until(f"order-{app_id}")
        assert await result(run, app_id) == 3


async def test_a_program_that_no_module_name_fits_is_served_with_a_warning(run: Steporal, app_id: str) -> None:
    write(run, app_id, HEAD, SHOP, RUN, name="my-shop.py")
    async with run.running_python("my-shop.py") as program:
        await program.until(f"serving app {app_id}")
        assert "warning: the workflows of app" in program.said
        assert await result(run, app_id) == 3


async def test_a_call_without_the_guard_is_an_error(run: Steporal, app_id: str) -> None:
    write(run, app_id, HEAD, SHOP, "\nclient.run()\n")
    ended = await run.python("shop.py")
    assert ended.status == 2
    assert "client.run() is called while module 'shop' is imported" in ended.err
    assert "put the call under `if __name__ == '__main__':`" in ended.err
    ended = await run("worker", "shop:client")
    assert ended.status == 2
    assert "client.run() is called while module 'shop' is imported" in ended.err


async def test_a_workflow_that_only_the_program_defines_is_an_error(run: Steporal, app_id: str) -> None:
    guarded = "\nif __name__ == '__main__':" + SHOP.replace("\n    ", "\n        ") + RUN.replace("    ", "        ")
    run.write("shop.py", dedent(HEAD.replace("{app!r}", repr(app_id))) + dedent(guarded.replace("{app}", app_id)))
    ended = await run.python("shop.py")
    assert ended.status == 2, ended.err
    assert f"module 'shop' does not define workflow 'order-{app_id}' when it is imported" in ended.err


async def test_the_missing_extra_is_named(offline: Steporal, app_id: str) -> None:
    write(offline, app_id, "import sys\nsys.modules['click'] = None\n", HEAD, RUN)
    ended = await offline.python("shop.py")
    assert ended.status == 1
    assert "client.run() needs 'click', which is not installed: pip install 'steporal[cli]'" in ended.err


async def test_a_server_that_does_not_answer_is_one_line(offline: Steporal, app_id: str) -> None:
    write(offline, app_id, HEAD, RUN)
    ended = await offline.python("shop.py")
    assert ended.status == 1
    assert ended.err.startswith("error: no Temporal server answers at '127.0.0.1:1'")


async def test_inside_an_event_loop_it_says_what_to_use(offline: Steporal, app_id: str) -> None:
    write(offline, app_id, "\nimport asyncio\n", HEAD, "\nasync def main():\n    client.run()\n\nasyncio.run(main())\n")
    ended = await offline.python("shop.py")
    assert ended.status == 1
    assert "client.run() starts an event loop, and is called inside one; use a worker there: Worker(" in ended.err
