from __future__ import annotations
from dataclasses import dataclass
from datetime import timedelta
@dataclass(frozen=True, slots=True)
class EventTrigger: event: str; if_exp: str|None=None
@dataclass(frozen=True, slots=True)
class CronTrigger:
    schedule: str; timezone: str|None=None; jitter: timedelta|None=None
    @property
    def expressions(self): return (self.schedule,)
Trigger = EventTrigger|CronTrigger
def event_trigger(name, if_exp=None): return EventTrigger(name, if_exp)
def cron_trigger(s, timezone=None, jitter=None): return CronTrigger(s,timezone,jitter)
