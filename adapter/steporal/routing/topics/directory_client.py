"""Client of the directory of topics: reads shards with a cache, lists topics, and starts shards that do not exist."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

import temporalio.client
from temporalio.client import WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, ServiceClient

from ...errors import UnknownKeyError
from ...expressions.binding import keys_at
from ...loops import PerLoop
from ...rpc import is_about_namespace, is_missing
from ...types import JSON
from ...values.converter import to_raw
from ...values.encrypted import memo_of
from ...wire.names import DIRECTORY, LIST_TOPIC, SYSTEM_TASK_QUEUE, TOPIC_KEY, UNLISTED_KEY, VERSION_KEY
from ..batching import send_batched
from ..messages import TASK_TIMEOUT
from .directory import Entry, Parts, Unlisted, Wanted, directory_id, part_of, read_entries, read_unlisted, shard_of

CACHE_SECONDS = 2.0
"""Lifetime of a cached shard. A subscription that changes the directory starts when all caches have expired."""

_SETTLED_SECONDS = 300.0
"""Age from which an entry counts as known to all senders, even if clocks differ by minutes."""

_LISTED_PER_UPDATE = 100
_RPC_TIMEOUT = timedelta(seconds=10)
_UPDATE_TIMEOUT = timedelta(seconds=20)
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Fact:
    """Part of a shard that leads events to a subscription.

    Attributes:
        key: Identifies the fact within its shard.
        since: When it was listed, in seconds since the epoch.
    """

    key: tuple[object, ...]
    since: float


@dataclass(frozen=True, slots=True)
class Shard:
    """Snapshot of a shard.

    Attributes:
        entries: The listed topics.
        unlisted: The note that other topics may exist, or None.
        is_there: Whether the shard runs. If it does not, the entries are the last ones that it listed.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    unlisted: Unlisted | None = None
    is_there: bool = True

    def facts(self) -> Iterable[Fact]:
        """Return the facts that subscriptions may rely on: none that will be removed soon."""
        if self.unlisted is not None and not self.unlisted.leaving:
            yield Fact((UNLISTED_KEY,), self.unlisted.since)
        for topic, entry in self.entries.items():
            for parts in entry.parts:
                if not parts.leaving:
                    yield from _facts_of(topic, parts)

    def relied_on(self, wanted: Wanted) -> Fact | None:
        """Return the oldest fact that leads events to a subscription, or None if the subscription must be listed."""
        if not self.is_there:
            return None
        facts: list[Fact] = []
        entry = self.entries.get(wanted.topic)
        parts = entry.of(wanted.count) if entry is not None else None
        if parts is not None and not parts.leaving:
            ways = [(), *([wanted.path] if wanted.path is not None and not wanted.others else [])]
            facts += [fact for fact in _facts_of(wanted.topic, parts) if fact.key[2] in ways]
        if wanted.count == 1 and self.unlisted is not None and not self.unlisted.leaving:
            facts.append(Fact((UNLISTED_KEY,), self.unlisted.since))
        return min(facts, key=lambda fact: fact.since, default=None)

    def count_for(self, topic: str) -> int:
        """Return the count of the parts that a new subscription goes to."""
        entry = self.entries.get(topic)
        counts = [parts.count for parts in entry.parts if not parts.leaving] if entry is not None else []
        return max(counts, default=1)


def _facts_of(topic: str, parts: Parts) -> Iterable[Fact]:
    """Return the facts that lead events to subscriptions in some parts: one for all of them, and one for each path."""
    if parts.count == 1 or parts.others is not None:
        yield Fact((topic, parts.count, ()), parts.others or parts.since)
    for path in parts.paths:
        yield Fact((topic, parts.count, path.names), path.since)


def parts_for(shard: Shard, topic: str, event: Mapping[str, JSON]) -> list[tuple[int, int]]:
    """Return the parts of a topic in which runs may wait for an event, as pairs of count and part."""
    entry = shard.entries.get(topic)
    places: dict[tuple[int, int], None] = {}
    is_listed = entry is not None and entry.of(1) is not None
    if not is_listed and (shard.unlisted is not None or not shard.is_there):
        places[1, 0] = None
    for parts in entry.parts if entry is not None else ():
        if parts.others is not None or parts.count == 1:
            places |= dict.fromkeys((parts.count, part) for part in range(parts.count))
            continue
        for path in parts.paths:
            for key in keys_at(path.names, event):
                places[parts.count, part_of(path.names, key, parts.count)] = None
    return list(places)


class Directory:
    """Directory of a namespace.

    Args:
        temporal: The connection. The user's interceptors do not apply to calls of the directory.
    """

    def __init__(self, temporal: temporalio.client.Client) -> None:
        config = temporal.config(active_config=True)  # includes changes by plugins, such as the data converter
        config["plugins"] = []
        config["interceptors"] = []
        self._temporal = temporalio.client.Client(**config)
        self._cache = _cache_of(temporal)

    async def read(self, topics: Iterable[str]) -> dict[str, Shard]:
        """Return the shard of each topic, at most two seconds old."""
        numbers = {topic: shard_of(topic) for topic in topics}
        shards = dict.fromkeys(numbers.values())
        read = await asyncio.gather(*(self._shard(number) for number in shards))
        by_number = dict(zip(shards, read, strict=True))
        return {topic: by_number[number] for topic, number in numbers.items()}

    async def listed(self, wanted: Wanted) -> None:
        """List a topic for a subscription if necessary, and wait until every sender knows the entry.

        The topic receives every event whose sending starts after this returns.
        """
        number = shard_of(wanted.topic)
        for _ in range(_TRIES):
            shard = await self._shard(number)
            fact = shard.relied_on(wanted)
            if fact is not None:
                await self._until_known(number, fact)
                return
            await self.list_topics([wanted])
        raise RuntimeError(
            f"the directory of topics did not list {wanted.topic!r} in {_TRIES} tries; see the logs of the workers on "
            f"task queue {SYSTEM_TASK_QUEUE!r}"
        )

    async def list_topics(self, wanted: Sequence[Wanted]) -> None:
        """List topics of one shard; confirm those that are listed."""
        number = shard_of(wanted[0].topic)
        data = [one.model_dump(mode="json", exclude_defaults=True) for one in wanted]
        size = sum(len(one.topic) for one in wanted)

        async def call(messages: list[object]) -> bool:
            await self._update(number, messages)
            self._cache.shards.pop(number, None)
            return True

        await send_batched(
            self._temporal, directory_id(number), LIST_TOPIC, data, size=size, max_count=_LISTED_PER_UPDATE, call=call
        )

    async def _update(self, number: int, messages: list[object]) -> None:
        for further in reversed(range(_TRIES)):
            try:
                handle = self._temporal.get_workflow_handle(directory_id(number))
                await handle.execute_update(LIST_TOPIC, to_raw(messages), rpc_timeout=_UPDATE_TIMEOUT)
                return
            except RPCError as err:
                if not further or not is_missing(err):
                    raise
                self._cache.shards.pop(number, None)
                await self._shard(number)  # starts it

    async def _until_known(self, number: int, fact: Fact) -> None:
        """Wait until every shard that a sender has cached contains the fact."""
        if fact.since + _SETTLED_SECONDS >= time.time():
            seen = self._cache.seen.get(number, {}).get(fact, time.monotonic())
            await asyncio.sleep(seen + CACHE_SECONDS - time.monotonic())

    # --- reading ---------------------------------------------------------------------------------------------------

    async def _shard(self, number: int) -> Shard:
        async with self._cache.reading(number).get():
            cached = self._cache.shards.get(number)
            if cached is None or time.monotonic() - cached[0] > CACHE_SECONDS:
                cached = time.monotonic(), await self._shard_or_start(number)
                self._cache.put(number, *cached)
            return cached[1]

    async def _shard_or_start(self, number: int) -> Shard:
        """Read a shard. Start it if it does not run, with the entries that it listed last."""
        shard = await self._describe(number)
        if shard is not None and shard.is_there:
            return shard
        if shard is None and (cached := self._cache.shards.get(number)) is not None:
            shard = cached[1]
        entries = shard.entries if shard is not None else {}
        is_started = await self._start(number, entries, since=time.time() if shard is not None else 0.0)
        started = await self._describe(number) if is_started else None
        return started or Shard(entries, is_there=False)

    async def _describe(self, number: int) -> Shard | None:
        """Read a shard; return None if Temporal has none, not even a closed one."""
        try:
            described = await self._temporal.get_workflow_handle(directory_id(number)).describe()
        except RPCError as err:
            if not is_missing(err):
                raise
            return None
        return await _shard_in(described)

    async def _start(self, number: int, entries: Mapping[str, Entry], since: float) -> bool:
        """Start a shard; return whether it runs now.

        Args:
            number: The shard.
            entries: The entries that it starts with.
            since: When the shard stopped knowing all topics; 0 if it never did.
        """
        listed = {TOPIC_KEY + topic: _json(entry) for topic, entry in entries.items()}
        try:
            await self._temporal.start_workflow(
                DIRECTORY,
                id=directory_id(number),
                task_queue=SYSTEM_TASK_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                memo={**listed, UNLISTED_KEY: _json(Unlisted(since=since)), VERSION_KEY: 1},
                task_timeout=TASK_TIMEOUT,
                static_summary="names of events that runs wait for",
                rpc_timeout=_RPC_TIMEOUT,
            )
        except RPCError as err:
            if is_about_namespace(err):
                raise
            return False  # the next reader tries again; until then, senders also send to topics that are not listed
        return True


def _json(model: Entry | Unlisted) -> JSON:
    return model.model_dump(mode="json", exclude_defaults=True)


async def _shard_in(described: WorkflowExecutionDescription) -> Shard:
    """Return the shard in a description. Entries that cannot be read count as unlisted topics."""
    try:
        memo: Mapping[str, Any] = await memo_of(described)
        unlisted = read_unlisted(memo)
    except (UnknownKeyError, ValueError):
        return Shard(unlisted=Unlisted(since=0.0, leaving=True))
    entries, unreadable = read_entries(memo)
    if unreadable and unlisted is None:
        unlisted = Unlisted(since=0.0, leaving=True)
    runs = described.status == WorkflowExecutionStatus.RUNNING and VERSION_KEY in memo
    return Shard(entries, unlisted, is_there=runs)


class _Cache:
    """Cache of a namespace's directory in this process.

    Attributes:
        shards: Each shard with the time before it was read.
        seen: The time at which each fact of a shard was first read.
    """

    def __init__(self) -> None:
        self.shards: dict[int, tuple[float, Shard]] = {}
        self.seen: dict[int, dict[Fact, float]] = {}
        self._reading: dict[int, PerLoop[asyncio.Lock]] = {}

    def reading(self, number: int) -> PerLoop[asyncio.Lock]:
        """Return the locks that serialize reads of a shard."""
        return self._reading.setdefault(number, PerLoop(asyncio.Lock))

    def put(self, number: int, moment: float, shard: Shard) -> None:
        """Store a shard."""
        now, before = time.monotonic(), self.seen.get(number, {})
        self.shards[number] = moment, shard
        self.seen[number] = {fact: before.get(fact, now) for fact in shard.facts()}


_caches: WeakKeyDictionary[ServiceClient, dict[str, _Cache]] = WeakKeyDictionary()
"""By connection and namespace."""


def _cache_of(temporal: temporalio.client.Client) -> _Cache:
    by_namespace = _caches.setdefault(temporal.service_client, {})
    return by_namespace.setdefault(temporal.namespace, _Cache())
