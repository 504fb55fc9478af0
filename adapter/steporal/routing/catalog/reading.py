"""Catalog of a namespace as one process reads it: the workflows that start on each event.

The catalog is kept in shards (``shards.py``), by the names and patterns of events and by the ids of workflows and apps.
Reading costs one ``describe`` call for each shard that the sent events concern, and none in the two seconds after that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import temporalio.client
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.service import RPCError

from ...errors import DefinitionError, UnknownKeyError
from ...expressions.expression import Judgement, compile_expression
from ...loops import PerLoop
from ...metrics import OTHER
from ...rpc import bounded, is_about_namespace, is_missing
from ...types import JSON
from ...values.converter import from_raw
from ...values.encrypted import check_readable, is_current, memo_of
from ...wire.names import LIST_KEY, STANDING_KEY, SYSTEM_TASK_QUEUE, VERSION_KEY
from ..messages import TASK_TIMEOUT
from .arbiter import FORM, Standing, arbiter_id
from .listing import AppList, Entry, Listed
from .shard_store import Shards, plain_converter
from .shards import SHARDS, Part, apps_in, keys_of, parts_of, shard_of_event, shard_of_workflow

__all__ = [
    "SYSTEM_TASK_QUEUE",
    "TASK_TIMEOUT",
    "AppList",
    "Catalog",
    "Entry",
    "Listed",
    "Match",
    "Registered",
    "Snapshot",
    "is_about_namespace",
]

_logger = logging.getLogger("steporal.catalog")

CACHE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Match:
    """Workflow that starts on an event.

    Attributes:
        workflow: The workflow's id.
        task_queue: The app's task queue.
        app: The app's id.
    """

    workflow: str
    task_queue: str
    app: str


@dataclass(slots=True)
class _Shard:
    """Content of a shard.

    Attributes:
        parts: The apps' parts, by the app's id.
        stale: The apps whose part is not encrypted as it would be now.
        by_event: The triggers by their event name or pattern.
    """

    parts: Mapping[str, Part]
    stale: Collection[str] = ()
    by_event: dict[str, list[tuple[Match, Entry]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for app, part in self.parts.items():
            for workflow, event, if_exp, is_bridge in part.triggers:
                trigger = Match(workflow, part.task_queue, app), Entry(event=event, if_exp=if_exp, bridge=is_bridge)
                self.by_event.setdefault(event, []).append(trigger)


class Snapshot:
    """Catalog at one moment, or only some of its shards.

    Args:
        shards: The shards, by their numbers.
    """

    def __init__(self, shards: Mapping[int, _Shard]) -> None:
        self._shards = shards

    @classmethod
    def of(cls, *apps: AppList) -> Snapshot:
        """Return the catalog as it is when the given apps are registered."""
        parts: dict[int, dict[str, Part]] = {}
        for app in apps:
            for number, part in parts_of(app).items():
                parts.setdefault(number, {})[app.id] = part
        return cls({number: _Shard(parts.get(number, {})) for number in range(SHARDS)})

    @property
    def apps(self) -> dict[str, str]:
        """Task queues of the apps, by the app's id; complete in a snapshot of all shards."""
        return {app: part.task_queue for shard in self._shards.values() for app, part in shard.parts.items()}

    @property
    def workflows(self) -> list[Match]:
        """Workflows that the shards list; complete in a snapshot of all shards."""
        return sorted(
            (
                Match(id, part.task_queue, app)
                for shard in self._shards.values()
                for app, part in shard.parts.items()
                for id in part.workflows
            ),
            key=lambda match: (match.app, match.workflow),
        )

    @property
    def stale(self) -> frozenset[str]:
        """Apps with a part that is not encrypted as it would be now."""
        return frozenset(app for shard in self._shards.values() for app in shard.stale)

    def with_id(self, workflow_id: str, app: str | None = None) -> list[Match]:
        """Return the workflows with an id, of one app or of any app."""
        parts = self._shards[shard_of_workflow(workflow_id)].parts
        names = parts if app is None else [app] if app in parts else []
        return [
            Match(workflow_id, parts[name].task_queue, name) for name in names if workflow_id in parts[name].workflows
        ]

    def matches(self, event: Mapping[str, JSON], *, bridged: bool = False) -> list[Match]:
        """Return the workflows that start on an event, each once, whichever of its triggers matches first.

        Args:
            event: The event.
            bridged: Whether the event came over a bridge; bridges do not forward it again.
        """
        matches: dict[Match, None] = {}
        for match, entry in self.candidates(event["name"], bridged=bridged):
            if match not in matches and self.judge(match, entry, event).is_true:
                matches[match] = None
        return list(matches)

    def candidates(self, name: str, *, bridged: bool = False) -> list[tuple[Match, Entry]]:
        """Return the triggers for events of a name, each with its workflow, before their expressions are evaluated.

        Args:
            name: The name.
            bridged: Whether the event came over a bridge; bridges do not forward it again.
        """
        return [
            (match, entry)
            for key in keys_of(name)
            for match, entry in self._of_key(key)
            if not (bridged and entry.bridge)
        ]

    def _of_key(self, key: str) -> Collection[tuple[Match, Entry]]:
        return self._shards[shard_of_event(key)].by_event.get(key, ())

    def judge(self, match: Match, entry: Entry, event: Mapping[str, JSON]) -> Judgement:
        """Judge whether an event starts the workflow of a trigger for its name."""
        if entry.if_exp is None:
            return Judgement(True, units=0)
        try:
            expression = compile_expression(entry.if_exp)
        except DefinitionError as err:  # a newer version may have functions that this one does not have
            _warn_once(match.app, f"no event starts workflow {match.workflow!r} from this process: {err}")
            return Judgement(False, units=0)
        return expression.judge(event=event)

    def unreadable(self) -> list[tuple[Match, Entry, str]]:
        """Return the triggers that this version cannot read, and that so start nothing, with the errors."""
        triggers = []
        for match, entry in self._triggers():
            try:
                compile_expression(entry.if_exp or "true")
            except DefinitionError as err:
                triggers.append((match, entry, str(err)))
        return triggers

    def _triggers(self) -> Iterator[tuple[Match, Entry]]:
        for shard in self._shards.values():
            for triggers in shard.by_event.values():
                yield from triggers

    def is_listened(self, name: str) -> bool:
        """Return whether any workflow starts on events of a name, whatever their data."""
        return any(self._of_key(key) for key in keys_of(name))

    def trigger_for(self, name: str) -> str:
        """Return the closest name or pattern of a trigger for events of a name, or ``other``."""
        return next((key for key in keys_of(name) if self._of_key(key)), OTHER)


_warned: dict[str, None] = {}
_MAX_WARNED = 1_000


def _warn_once(app: str, message: str) -> None:
    """Log a problem of an app's registration, once in this process, because it is read every few seconds."""
    if message not in _warned and len(_warned) < _MAX_WARNED:
        _warned[message] = None
        _logger.warning("app %r: %s", app, message)


@dataclass(frozen=True, slots=True)
class Registered:
    """Registration of an app.

    Attributes:
        app: The list in force; None if a later version of Steporal has written it, and this one cannot read it.
        standing: The record of the list; None likewise.
        is_stale: Whether the list is not encrypted as it would be now.
    """

    app: AppList | None
    standing: Standing | None
    is_stale: bool = False


class Catalog:
    """Catalog of a namespace as one process reads it.

    Args:
        temporal: The connection.
        cache_seconds: The lifetime of cached shards.
    """

    def __init__(self, temporal: temporalio.client.Client, cache_seconds: float = CACHE_SECONDS) -> None:
        self._temporal = temporal
        self.namespace: str = temporal.namespace
        self._cache_seconds = cache_seconds
        self._store = Shards(temporal)
        self._cached: dict[int, tuple[float, _Shard]] = {}
        self._parsed: dict[int, dict[str, tuple[Payload, Part | None]]] = {}
        self._reading = {number: PerLoop(asyncio.Lock) for number in range(SHARDS)}

    async def read(self, names: Iterable[str], *, fresh: bool = False) -> Snapshot:
        """Read what concerns events of some names; from a cache of a few seconds unless ``fresh``."""
        return await self._read({shard_of_event(key) for name in set(names) for key in keys_of(name)}, fresh=fresh)

    async def read_workflows(self, ids: Iterable[str], *, fresh: bool = False) -> Snapshot:
        """Read which apps have workflows with some ids."""
        return await self._read(set(map(shard_of_workflow, ids)), fresh=fresh)

    async def read_all(self, *, fresh: bool = False) -> Snapshot:
        """Read all shards."""
        return await self._read(range(SHARDS), fresh=fresh)

    async def read_app(self, app: str) -> Registered | None:
        """Read the registration of an app from the app's own workflow; None if it is not registered."""
        try:
            described = await self._temporal.get_workflow_handle(arbiter_id(app)).describe()
        except RPCError as err:
            if is_missing(err):
                return None
            raise
        if described.close_time is not None:
            return None
        memo = await memo_of(described)
        if STANDING_KEY not in memo:
            return None
        stored = described.raw_description.workflow_execution_info.memo.fields
        is_stale = LIST_KEY in stored and not is_current(self._temporal.data_converter, stored[LIST_KEY])
        try:
            return Registered(
                AppList.model_validate(memo[LIST_KEY]), Standing.model_validate(memo[STANDING_KEY]), is_stale
            )
        except (KeyError, ValueError) as err:
            _warn_once(app, f"its registration cannot be read: {err}")
            form = memo.get(VERSION_KEY)
            return Registered(None, None, is_stale) if isinstance(form, int) and form > FORM else None

    async def read_apps(self) -> dict[str, AppList]:
        """Read the lists of all apps, by id."""
        ids = sorted((await self.read_all()).apps)
        registered = await bounded(self.read_app, ids)
        return {
            id: each.app for id, each in zip(ids, registered, strict=True) if each is not None and each.app is not None
        }

    async def _read(self, numbers: Iterable[int], *, fresh: bool) -> Snapshot:
        async def read(number: int) -> tuple[int, _Shard]:
            return number, await self._shard(number, fresh=fresh)

        now, shards, missing = time.monotonic(), {}, []
        for number in numbers:
            cached = self._cached.get(number)
            if fresh or cached is None or now - cached[0] > self._cache_seconds:
                missing.append(number)
            else:
                shards[number] = cached[1]
        return Snapshot({**shards, **dict(await bounded(read, missing))})

    async def _shard(self, number: int, *, fresh: bool) -> _Shard:
        async with self._reading[number].get():
            cached = self._cached.get(number)
            if cached is None or fresh or time.monotonic() - cached[0] > self._cache_seconds:
                read_at = time.monotonic()
                shard = await self._parse(number, await self._store.read(number), cached and cached[1])
                cached = self._cached[number] = (read_at, shard)
            return cached[1]

    async def _parse(self, number: int, memo: Mapping[str, Payload], before: _Shard | None) -> _Shard:
        """Return the content of a shard; unchanged fields are not decoded again."""
        known, fields = self._parsed.get(number, {}), dict(apps_in(memo))
        changed = {app: field for app, field in fields.items() if app not in known or known[app][0] != field}
        if before is not None and not changed and len(known) == len(fields):
            return before
        parsed = {app: known[app] for app in fields if app not in changed}
        for app, payload in changed.items():
            parsed[app] = payload, await self._part(app, payload)
        self._parsed[number] = parsed
        converter = self._temporal.data_converter
        return _Shard(
            {app: part for app, (_, part) in parsed.items() if part is not None},
            frozenset(app for app, payload in fields.items() if not is_current(converter, payload)),
        )

    async def _part(self, app: str, payload: Payload) -> Part | None:
        """Return an app's part; None if this version cannot read it, which does not affect other apps.

        Raises:
            UnknownKeyError: The part is encrypted, and this process does not have the key.
        """
        converter = plain_converter(self._temporal.data_converter)
        try:
            (raw,) = await converter.decode([payload], [RawValue])
            check_readable(raw.payload)
            return Part.model_validate(from_raw(raw))
        except UnknownKeyError:
            raise
        except Exception as err:  # from any codec; or the part claims to be in external storage, which is not set up
            _warn_once(app, f"its list in the catalog cannot be read: {err}")
            return None
