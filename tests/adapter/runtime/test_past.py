"""What a run has done, as its history tells it piece by piece."""

from __future__ import annotations

from steporal.runtime.carried import Carried
from steporal.runtime.past import Past
from steporal.runtime.waits import BACKOFF_AFTER, BEGINS_ANEW


def test_a_step_that_sends_more_has_not_ended_before_the_attempt_that_began_meanwhile() -> None:
    past = Past("run", "shop/order/1", Carried(is_parked=False, started=0, seed=""), is_first=True)
    past.task_done()
    past.timer_started(5, f"{BACKOFF_AFTER}1 of the body{BEGINS_ANEW}", 1.0)
    past.sent("mail")
    past.timer_fired(5)
    past.moment = 1_000_000_000
    past.task_done()
    past.sends_more("mail")
    carried = past.carried()
    assert (carried.past, carried.attempt, carried.repeated) == ([], 1, 0)
