"""Arbiter of an app's lists: one Temporal workflow per app, ``steporal.app/{app}``.

Processes of one app may have different lists: of an old and a new deployment, of a canary, of two modules. Each process
claims that its list should be in force. The workflow decides, runs an activity that updates the shards and schedules,
and keeps the list in force in its Temporal memo. It runs on a task queue that only the app's processes poll.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field
from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from ...sdk.any_arguments import of_any_count
from ...types import JSON
from ...values.converter import from_raw, to_raw
from ...wire.names import ARBITER, CATALOG_FULL, LIST_KEY, PLACE_APP, REGISTER, SCHEDULES_KEY, STANDING_KEY, VERSION_KEY
from ...workflow_kinds import of_kind
from ..messages import memo_value, message_json, read, refuse
from .listing import AppList
from .shards import is_possible

FORM = 1
"""Format of the memo: a worker does not touch a memo in a later format."""

MAX_LIST_BYTES = 1_500_000
"""Size limit of the list, which must fit into a memo; Temporal limits memos to 2 MiB."""

_UPDATES_PER_EXECUTION = 20
"""Number of updates per execution. A live workflow replays with it: another value needs ``workflow.patched``."""

_MAX_NUMBER = 2**63 - 1
"""Limit of revisions: Python cannot write an integer of more than 4,300 digits."""

_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30))


def arbiter_id(app: str) -> str:
    """Return the id of the workflow of an app's list; also the name of its task queue."""
    return f"{ARBITER}/{app}"


class Standing(BaseModel):
    """Record of the list in force.

    Attributes:
        generation: The list's number, which rises with each change of what is placed.
        digest: The digest of the list.
        schedules_digest: The digest of its schedules and their format.
        revision: The revision of the code.
        started: The start of the process that registered it, in milliseconds since the epoch; breaks a tie.
        version: The process's Worker Deployment Version, ``{deployment}.{build}``; empty without Worker Versioning.
        since: The time of its registration, in milliseconds since the epoch.
        from_worker: Whether a worker registered it, and not ``steporal sync``.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    generation: int
    digest: str
    schedules_digest: str = ""
    revision: int
    started: int
    version: str = ""
    since: int = 0
    from_worker: bool = True


class Claim(BaseModel):
    """Claim of a process that its list should be in force.

    Attributes:
        app: The list.
        version: The process's Worker Deployment Version; empty without Worker Versioning.
        is_current: Whether Temporal gives new runs to that version.
        over: The generation of a list in force that no worker serves any more, and that this list may replace.
        take_over: Whether to replace any other list.
        repair: Whether to place the list again although it has not changed, because a part of it is missing.
        thorough: Whether to check each shard and each schedule.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    app: AppList
    digest: str
    schedules_digest: str = ""
    revision: int = Field(ge=-_MAX_NUMBER, le=_MAX_NUMBER)
    started: int = Field(ge=-_MAX_NUMBER, le=_MAX_NUMBER)
    version: str = ""
    is_current: bool = False
    from_worker: bool = True
    over: int | None = None
    take_over: bool = False
    repair: bool = False
    thorough: bool = False

    def prevails(self, standing: Standing | None) -> bool:
        """Return whether this list replaces the one in force, or is that one."""
        if standing is None or self.digest == standing.digest:
            return True
        if self.take_over or self.over == standing.generation:
            return True
        if self.version:
            return self.is_current
        return not standing.version and (self.revision, self.started) > (standing.revision, standing.started)

    def changes(self, standing: Standing | None) -> bool:
        """Return whether registering the list would change anything."""
        if standing is None or self.digest != standing.digest or self.repair or self.thorough or self.take_over:
            return True
        return self.revision > standing.revision or (self.is_current and self.version != standing.version)

    def succeeding(self, standing: Standing | None, *, generation: int, now: int) -> Standing:
        """Return the record of this list after it has replaced another."""
        revision = self.revision
        if standing is not None and self.take_over:
            # A list that was replaced on purpose stays below this one, although its code may be newer.
            revision = max(revision, standing.revision + (self.digest != standing.digest))
        elif standing is not None and self.digest == standing.digest:
            revision = max(revision, standing.revision)
        return Standing(
            generation=generation,
            digest=self.digest,
            schedules_digest=self.schedules_digest,
            revision=revision,
            started=self.started,
            version=self.version,
            since=now,
            from_worker=self.from_worker,
        )


class Order(BaseModel):
    """Order to the activity that places a list.

    Attributes:
        app: The list; without workflows, to remove the whole app.
        generation: The list's number.
        schedules: The schedules that may exist; None if they are up to date.
        is_first: Whether this workflow has placed nothing before; a terminated one may have.
        thorough: Whether to check each shard and each schedule.
        thorough: Whether to look at each shard and each schedule.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    app: AppList
    generation: int
    schedules: tuple[str, ...] | None = ()
    is_first: bool = False
    thorough: bool = False


@workflow.defn(name=ARBITER, sandboxed=False)
@of_kind("system")
class AppWorkflow:
    """Decides which of an app's lists is in force."""

    @workflow.init
    def __init__(self) -> None:
        self._standing = _standing(memo_value(STANDING_KEY))
        self._schedules = _texts(memo_value(SCHEDULES_KEY))
        self._registering = asyncio.Lock()
        self._updates = 0
        self._is_gone = False

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self._is_over() and workflow.all_handlers_finished())
        if not self._is_gone:
            memo = {key: RawValue(payload) for key, payload in workflow.info().raw_memo.items()}
            workflow.continue_as_new(memo={**memo, VERSION_KEY: FORM})  # never an empty memo: see ShardWorkflow

    def _is_over(self) -> bool:
        is_long = self._updates >= _UPDATES_PER_EXECUTION or workflow.info().is_continue_as_new_suggested()
        return self._is_gone or is_long

    @workflow.update(name=REGISTER)
    @of_any_count
    async def register(self, message: RawValue) -> RawValue:
        """Decide on a claim, and place its list if it prevails; return the record of the list in force."""
        claim = read(Claim, message_json(message), "registration")
        if claim is None or arbiter_id(claim.app.id) != workflow.info().workflow_id:
            raise refuse("registration")
        async with self._registering:
            self._updates += 1
            if claim.prevails(self._standing) and claim.changes(self._standing):
                await self._succeed(claim)
            return to_raw(None if self._standing is None else self._standing.model_dump(mode="json"))

    async def _succeed(self, claim: Claim) -> None:
        before, now = self._standing, round(workflow.now().timestamp() * 1000)
        generation = max(now, 0 if before is None else before.generation + 1)
        if before is not None and claim.digest == before.digest and not (claim.repair or claim.thorough):
            generation = before.generation
        else:
            await self._place(claim, generation)
        self._standing = claim.succeeding(before, generation=generation, now=now) if claim.app.workflows else None
        self._is_gone = self._standing is None
        self._schedules = claim.app.schedules
        if self._standing is not None:
            workflow.upsert_memo(
                {
                    LIST_KEY: claim.app.model_dump(mode="json", exclude_defaults=True),
                    STANDING_KEY: self._standing.model_dump(mode="json"),
                    SCHEDULES_KEY: list(self._schedules),
                    VERSION_KEY: FORM,
                }
            )

    async def _place(self, claim: Claim, generation: int) -> None:
        before = self._standing
        known = tuple(sorted({*self._schedules, *claim.app.schedules}))
        if known != self._schedules:  # written first, so that a crash leaves no schedule that is not recorded
            self._schedules = known
            workflow.upsert_memo({SCHEDULES_KEY: list(known)})
        are_same = before is not None and before.schedules_digest == claim.schedules_digest and not claim.thorough
        order = Order(
            app=claim.app,
            generation=generation,
            schedules=None if are_same else known,
            is_first=before is None,
            thorough=claim.thorough,
        )
        try:
            await workflow.execute_activity(
                PLACE_APP,
                to_raw(order.model_dump(mode="json", exclude_defaults=True)),
                result_type=RawValue,
                start_to_close_timeout=timedelta(minutes=30),
                heartbeat_timeout=timedelta(seconds=30),
                retry_policy=_RETRY,
                summary=f"generation {generation}",
            )
        except ActivityError as err:
            cause = err.cause
            if isinstance(cause, ApplicationError) and cause.type == CATALOG_FULL:
                raise ApplicationError(cause.message, type=CATALOG_FULL, non_retryable=True) from None
            raise ApplicationError(f"{cause or err}", type="RegistrationError", non_retryable=True) from None


def _standing(value: JSON) -> Standing | None:
    try:
        standing = Standing.model_validate(value)
    except ValueError:  # no record exists, or a later version of Steporal has written it
        return None
    return standing if is_possible(standing.generation) else None


def _texts(value: JSON) -> tuple[str, ...]:
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()


def standing_of(answer: RawValue) -> Standing | None:
    """Return the record in the response of the update."""
    data = from_raw(answer)
    return None if data is None else Standing.model_validate(data)
