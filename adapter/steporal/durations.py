from __future__ import annotations
import re
from datetime import datetime, timedelta, timezone
Duration = timedelta | int | str
U={"w":7*86400,"d":86400,"h":3600,"m":60,"s":1,"ms":0.001}
def parse_duration(value, *, what="duration", minimum=timedelta(0)):
    if isinstance(value, bool) or not isinstance(value,(timedelta,int,str)): raise TypeError(f"{what} is {value!r}")
    if isinstance(value,timedelta): d=value
    elif isinstance(value,int): d=timedelta(milliseconds=value)
    else:
        parts=re.findall(r"(\d+)(ms|[wdhms])",value)
        if "".join(a+b for a,b in parts)!=value or not parts: raise ValueError(f"{what} is {value!r}")
        d=timedelta(seconds=sum(int(a)*U[b] for a,b in parts))
    if d<minimum: raise ValueError(f"{what} is {value!r}")
    return d
def parse_deadline(value, *, what="deadline"):
    if value.tzinfo is None: raise ValueError("naive")
    return value.astimezone(timezone.utc)
def delay_of(value, *, now):
    return max(parse_deadline(value)-now, timedelta(0)) if isinstance(value, datetime) else parse_duration(value)
def format_duration(d): return str(d)
