"""What a body raises ends its run, says so, and neither stops nor hangs a worker."""

from __future__ import annotations

import pytest
from apps import exits
from recording import Workers

import steporal
from steporal.sandbox.interrupts import Contained


async def failure(run: steporal.Run[None]) -> str:
    """Return what a run has failed with."""
    with pytest.raises(steporal.RunFailedError) as raised:
        await run.result()
    return str(raised.value)


@pytest.mark.parametrize("what", exits.EXITS)
@pytest.mark.parametrize("workflow", [exits.exits, exits.exits_in_a_task], ids=lambda workflow: workflow.id)
async def test_an_error_that_would_end_a_program_fails_the_run_and_the_worker_goes_on(
    workers: Workers, workflow: steporal.Workflow[str, None], what: str
) -> None:
    async with workers(exits.client):
        message = await failure(await workflow.start(what))
        assert await (await exits.innocent.start()).result() == "ok"
    assert f"NonRetryableError: the body raised {what}, which ends a program" in message


async def test_an_exit_in_a_callback_of_the_event_loop_fails_the_run_and_the_worker_goes_on(workers: Workers) -> None:
    async with workers(exits.client):
        message = await failure(await exits.exits_in_a_callback.start())
        assert await (await exits.innocent.start()).result() == "ok"
    assert "NonRetryableError: the body raised SystemExit with 3, which ends a program" in message


@pytest.mark.parametrize("what", exits.ERRORS)
async def test_an_error_that_cannot_be_shown_fails_the_run(workers: Workers, what: str) -> None:
    async with workers(exits.client):
        assert exits.ERRORS[what][1] in await failure(await exits.raises.start(what))


@pytest.mark.parametrize("what", exits.ERRORS)
async def test_an_error_that_cannot_be_shown_fails_the_step(workers: Workers, what: str) -> None:
    async with workers(exits.client):
        message, attempts = await (await exits.step_raises.start(what)).result()
    assert message.startswith(exits.ERRORS[what][1])
    assert attempts in (0, 1)  # 0: the app has made the error for Temporal, without a count


def test_a_coroutine_that_is_closed_ends_as_any_other() -> None:
    ended = []

    async def waits() -> None:
        try:
            await Pause()
        finally:
            ended.append("closed")

    coroutine = Contained(waits())
    coroutine.send(None)
    coroutine.close()
    assert ended == ["closed"]


class Pause:
    def __await__(self):  # type: ignore[no-untyped-def]
        yield
