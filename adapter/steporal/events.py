from __future__ import annotations
import hashlib
from typing import Any, Mapping
from pydantic import BaseModel
from ulid import ULID
class SentEvent(BaseModel):
    name: str; data: dict[str, Any] = {}; id: str|None=None; ts: int|None=None; v: str|None=None
class ReceivedEvent(BaseModel):
    name: str; data: dict[str, Any]; id: str; ts: int; v: str|None=None
class SendEventResult(BaseModel):
    ids: list[str]
EventLike = SentEvent | Mapping[str, Any]
def prepare_events(events, *, new_id, now_ms, max_bytes=0, max_count=0):
    if not isinstance(events, list): events=[events]
    out=[]
    for i,e in enumerate(events):
        e = e if isinstance(e, SentEvent) else SentEvent(**e)
        out.append(ReceivedEvent(name=e.name,data=e.data,id=e.id or new_id(i),ts=e.ts or now_ms,v=e.v))
    return out
def new_ulid(): return str(ULID())
def derived_ulid(ms, *parts):
    return str(ULID.from_bytes(ms.to_bytes(6,"big")+hashlib.sha256(repr(parts).encode()).digest()[:10]))
def wildcard_prefix(p): return p[:-1] if p.endswith("*") else None
