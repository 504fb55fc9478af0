"""Which workflows start on which event: one Temporal workflow per namespace, ``steporal.catalog``.

It holds each app's list of workflows, in its Temporal memo, so that a sender reads all of them with one ``describe``
call, and no worker needs to be up. An app's worker replaces the app's whole list by an update.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

import temporalio.client
from pydantic import AfterValidator, BaseModel, ConfigDict
from temporalio import workflow
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.client import RPCTimeoutOrCancelledError, WithStartWorkflowOperation
from temporalio.common import RawValue, WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from ..converter import to_raw
from ..definition import MAX_ID_BYTES
from ..errors import DefinitionError
from ..events import RESERVED_PREFIXES, wildcard_prefix
from ..loops import PerLoop
from ..metrics import OTHER
from ..sealed import is_current, memo_of
from ..types import JSON
from .expressions import Judgement, compile_expression
from .messages import of_any_count, read, refuse, said

_logger = logging.getLogger("steporal.catalog")

CATALOG = "steporal.catalog"
SYSTEM_TASK_QUEUE = "steporal"
REGISTER = "steporal.register"

CACHE_SECONDS = 2.0

_UPDATES_PER_EXECUTION = 20
"""Each worker that starts replays the catalog from its last continue-as-new, so that is never long ago.

A live catalog replays with this number: another one needs ``workflow.patched``.
"""

TASK_TIMEOUT = timedelta(seconds=3)
"""A task may be lost with a worker that leaves as it comes; Temporal's 10 s are how long who asks would wait."""

_APP = "app:"
_VERSION = "version"
"""Keys of the memo."""


def _checked(id: str) -> str:
    size = len(id.encode(errors="surrogatepass"))
    if not id.strip() or size > MAX_ID_BYTES or "\0" in id or id.startswith("steporal."):
        raise ValueError("Temporal takes no such id, or it is one of Steporal's own")
    return id


Id = Annotated[str, AfterValidator(_checked)]
"""An id that a client may have been given: others would make Temporal refuse what concerns more than this app."""


class Entry(BaseModel):
    """A trigger in an app's list.

    Attributes:
        timezone: The time zone of a cron schedule; UTC if there is none.
        bridge: Whether it forwards events to another system, from which some have come.
    """

    model_config = ConfigDict(frozen=True)

    event: str | None = None
    if_exp: str | None = None
    cron: str | None = None
    timezone: str | None = None
    bridge: bool = False


class Listed(BaseModel):
    """A workflow in an app's list."""

    model_config = ConfigDict(frozen=True)

    id: Id
    triggers: tuple[Entry, ...] = ()


class App(BaseModel):
    """An app's list, as the catalog holds it.

    Attributes:
        modules: The modules that define the app's workflows.
        schedules: The ids of its schedules.
        schedules_digest: What they are like; empty while they are being changed.
    """

    model_config = ConfigDict(frozen=True)

    id: Id
    task_queue: Id
    modules: tuple[str, ...] = ()
    workflows: tuple[Listed, ...] = ()
    schedules: tuple[str, ...] = ()
    schedules_digest: str = ""

    def with_schedules(self, ids: Iterable[str]) -> App:
        """The list, while its schedules are being changed: with those that there are before and after that."""
        return self.model_copy(update={"schedules": tuple(sorted(ids)), "schedules_digest": ""})


@workflow.defn(name=CATALOG, sandboxed=False)
class CatalogWorkflow:
    """Holds each app's list in its memo."""

    def __init__(self) -> None:
        self._updates = 0

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(
            lambda: self._updates >= _UPDATES_PER_EXECUTION or workflow.info().is_continue_as_new_suggested()
        )
        await workflow.wait_condition(workflow.all_handlers_finished)
        # Given none, or an empty one, Temporal takes the memo that this execution was started with, without what was
        # upserted since.
        memo = {key: value for key, value in workflow.memo().items() if value is not None}
        workflow.continue_as_new(memo={**memo, _VERSION: 1})

    @workflow.update(name=REGISTER)
    @of_any_count
    def register(self, app: RawValue) -> None:
        """Replace an app's list; an app without workflows is forgotten."""
        listed = read(App, said(app), "list of an app")
        if listed is None:
            raise refuse("list of an app")
        workflow.upsert_memo({_APP + listed.id: listed.model_dump(mode="json") if listed.workflows else None})
        self._updates += 1


@dataclass(frozen=True, slots=True)
class Match:
    """A workflow that starts on an event."""

    workflow: str
    task_queue: str
    app: str


@dataclass(slots=True)
class Snapshot:
    """The catalog at one moment, indexed by event.

    Attributes:
        apps: The apps' lists.
        stale: The apps whose list is encrypted otherwise than it would be now.
    """

    apps: Mapping[str, App] = field(default_factory=dict)
    stale: frozenset[str] = frozenset()
    _by_name: dict[str, list[tuple[Match, Entry]]] = field(default_factory=dict)
    _by_prefix: dict[str, list[tuple[Match, Entry]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for app in self.apps.values():
            for listed in app.workflows:
                for entry in listed.triggers:
                    if entry.event is None:
                        continue
                    prefix = wildcard_prefix(entry.event)
                    index, key = (self._by_name, entry.event) if prefix is None else (self._by_prefix, prefix)
                    index.setdefault(key, []).append((Match(listed.id, app.task_queue, app.id), entry))

    def matches(self, event: Mapping[str, JSON], *, bridged: bool = False) -> list[Match]:
        """The workflows that start on an event, each once, whichever of its triggers matches first.

        Args:
            event: The event.
            bridged: It has come over a bridge; none forwards it again.
        """
        found: dict[Match, None] = {}
        for match, entry in self.candidates(event["name"], bridged=bridged):
            if match not in found and self.judge(match, entry, event).is_true:
                found[match] = None
        return list(found)

    def candidates(self, name: str, *, bridged: bool = False) -> list[tuple[Match, Entry]]:
        """Return the triggers for events of a name, each with its workflow; their expressions decide.

        Args:
            name: The name.
            bridged: The event has come over a bridge; none forwards it again.
        """
        candidates = list(self._by_name.get(name, ()))
        for prefix, triggers in self._by_prefix.items():
            if _is_under(prefix, name):
                candidates += triggers
        return [(match, entry) for match, entry in candidates if not (bridged and entry.bridge)]

    def judge(self, match: Match, entry: Entry, event: Mapping[str, JSON]) -> Judgement:
        """Judge whether an event of its name starts the workflow of a trigger."""
        if entry.if_exp is None:
            return Judgement(True, units=0)
        try:
            expression = compile_expression(entry.if_exp)
        except DefinitionError as err:  # a newer version may have functions that this one has not
            _tell_once(match.app, f"no event starts workflow {match.workflow!r} from this process: {err}")
            return Judgement(False, units=0)
        return expression.judge(event=event)

    def unreadable(self) -> list[tuple[Match, Entry, str]]:
        """The triggers that this version cannot read, which start nothing, and why."""
        found = []
        for triggers in (*self._by_name.values(), *self._by_prefix.values()):
            for match, entry in triggers:
                try:
                    compile_expression(entry.if_exp or "true")
                except DefinitionError as err:
                    found.append((match, entry, str(err)))
        return found

    def is_listened(self, name: str) -> bool:
        """Whether any workflow starts on events of a name, whatever is in them."""
        return name in self._by_name or any(_is_under(prefix, name) for prefix in self._by_prefix)

    def trigger_for(self, name: str) -> str:
        """By which name or pattern of a trigger, the closest, events of a name are known; ``other`` if by none."""
        if name in self._by_name:
            return name
        prefixes = [prefix for prefix in self._by_prefix if _is_under(prefix, name)]
        return f"{max(prefixes, key=len)}*" if prefixes else OTHER

    def workflow(self, workflow_id: str, app: str | None = None) -> list[tuple[App, Listed]]:
        """The listed workflows with an id, of one app or of any."""
        return [
            (listed_app, listed)
            for listed_app in self.apps.values()
            if app is None or listed_app.id == app
            for listed in listed_app.workflows
            if listed.id == workflow_id
        ]


_told: dict[str, None] = {}
_MOST_TOLD = 1_000


def _tell_once(app: str, what: str) -> None:
    """Log what is wrong with what an app has registered, once in this process: it is read every few seconds."""
    if what not in _told and len(_told) < _MOST_TOLD:
        _told[what] = None
        _logger.warning("app %r: %s", app, what)


def _is_under(prefix: str, name: str) -> bool:
    """Whether a pattern, given by what stands before its wildcard, is for events of a name.

    ``*`` alone is not for the system's events, or a sink of all events would make every run tell that it has finished.
    """
    if not prefix:
        return not name.startswith(RESERVED_PREFIXES)
    return name.startswith(prefix) and len(name) > len(prefix)


def is_about_namespace(error: RPCError) -> bool:
    return any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details)


def _app(key: str, data: JSON) -> App | None:
    """An app's list; None for one that this version cannot read, which is in no other app's way."""
    try:
        return App.model_validate(data)
    except ValueError as err:
        _tell_once(key.removeprefix(_APP), f"its list in the catalog cannot be read: {err}")
        return None


class Catalog:
    """The catalog of a namespace, as one process reads and writes it."""

    def __init__(self, temporal: temporalio.client.Client, cache_seconds: float = CACHE_SECONDS) -> None:
        self._temporal = temporal
        self._cache_seconds = cache_seconds
        self._cached: tuple[float, Snapshot] | None = None
        self._reading = PerLoop(asyncio.Lock)

    async def read(self, *, fresh: bool = False) -> Snapshot:
        """All apps' lists; from a cache of seconds unless ``fresh``."""
        async with self._reading.get():
            cached = self._cached
            if cached is None or fresh or time.monotonic() - cached[0] > self._cache_seconds:
                cached = self._cached = (time.monotonic(), await self._describe())
            return cached[1]

    async def _describe(self) -> Snapshot:
        try:
            description = await self._temporal.get_workflow_handle(CATALOG).describe()
        except RPCError as err:
            if err.status == RPCStatusCode.NOT_FOUND and not is_about_namespace(err):
                return Snapshot()
            raise
        memo = await memo_of(description)
        # Temporal drops a null; a codec may hide from it that it is one.
        listed = {key: app for key, app in memo.items() if key.startswith(_APP) and app is not None}
        apps = {key: app for key in listed if (app := _app(key, listed[key])) is not None}
        stored = description.raw_description.workflow_execution_info.memo.fields
        stale = {app.id for key, app in apps.items() if not is_current(self._temporal.data_converter, stored[key])}
        return Snapshot({app.id: app for app in apps.values()}, frozenset(stale))

    async def register(self, app: App) -> None:
        """Replace an app's list, and wait until the catalog has it. Needs a worker on the system task queue."""
        there = await self.read()
        known = there.apps.get(app.id)
        if (known == app and app.id not in there.stale) or (known is None and not app.workflows):
            return
        start: WithStartWorkflowOperation[CatalogWorkflow, None] = WithStartWorkflowOperation(
            CATALOG,
            id=CATALOG,
            task_queue=SYSTEM_TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            task_timeout=TASK_TIMEOUT,
            static_summary="which workflows start on which event",
        )
        try:
            await self._temporal.execute_update_with_start_workflow(
                REGISTER,
                to_raw(app.model_dump(mode="json")),
                start_workflow_operation=start,
                rpc_timeout=timedelta(seconds=30),
            )
        except (RPCError, RPCTimeoutOrCancelledError):
            # The operation keeps the error, too; asyncio logs one that nobody has asked for.
            await asyncio.gather(start.workflow_handle(), return_exceptions=True)
            raise
        self._cached = None
