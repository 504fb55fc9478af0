"""The demo: the whole story, and then nothing is left running."""

from __future__ import annotations

import re
import signal

from commands import Steporal


async def test_the_demo_tells_its_story_and_stops_everything(offline: Steporal) -> None:
    ended = await offline("demo")
    assert ended.status == 0, ended.err
    for run in ("process-order", "ship-order", "user-signup", "welcome-user", "onboard-user", "expense"):
        assert re.search(rf"{run}/\w+  completed in", ended.out)
    assert "✓ charge-card on attempt 3; the one before: CardNetworkError" in ended.out
    slept = re.search(r"give-it-time +│ sleeps +│ (\d+\.\d\d) s", ended.out)
    assert slept and float(slept[1]) >= 2
    assert re.search(r"wait-for-approval +│ waits +│", ended.out)
    assert '"status": "approved"' in ended.out
    assert re.search(r"its UI at http://127\.0\.0\.1:\d+", ended.out)
    assert "Everything is stopped." in ended.out


async def test_the_demo_stays_up_when_asked(offline: Steporal) -> None:
    async with offline.running("demo", KEEP="1") as process:
        await process.until("Still up, until Ctrl-C")
        found = re.search(r"dev server at (\S+),", process.said)
        assert found
        assert (await offline("catalog", "--address", found[1])).status == 0
        process.signal(signal.SIGINT)
        assert (await process.ended()).status == 0
