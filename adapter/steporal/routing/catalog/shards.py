"""Shards of the catalog: 32 Temporal workflows per namespace, ``steporal.catalog/{number}``.

Each holds in its Temporal memo one field per app: the triggers whose event name or pattern hashes to the shard's
number. A sender reads only the shards of the names that it sends.

The workers that serve the shards have no data converter. The app that registers encodes its field, and whoever reads
the field decodes it. So if some worker lacks a key, this does not prevent other apps from registering.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from pydantic import Base64Bytes, BaseModel, ConfigDict
from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from ...events import MAX_LEVELS, RESERVED_PREFIXES
from ...sdk.any_arguments import of_any_count
from ...values.encrypted import is_sealed
from ...wire.names import APP_KEY, CATALOG_FULL, GENERATION_METADATA, PLACE, SHARD, VERSION_KEY
from ...workflow_kinds import of_kind
from ..messages import message_json, read, refuse
from .listing import AppList, Id

SHARDS = 32
"""Number of shards. A change moves triggers to other shards, so that all apps would have to register again."""

MAX_SHARD_BYTES = 1_800_000
"""Temporal limits a memo to 2 MiB, and fails the workflow task that exceeds it."""


_MAX_AHEAD_SECONDS = 60  # allows for differing server clocks; also the time that a forged list stays

_UPDATES_PER_EXECUTION = 20
"""Number of updates before continue-as-new. Each worker that starts replays the shard from there; this keeps it short.

A live shard replays with this number: another value needs ``workflow.patched``.
"""


def shard_id(number: int) -> str:
    """Return the workflow id of a shard."""
    return f"{SHARD}/{number}"


# --- hashing -------------------------------------------------------------------------------------------------------


def keys_of(name: str) -> list[str]:
    """Return the name and the patterns of triggers that start on events of a name, the closest first.

    Patterns do not apply to system events; otherwise a sink for all events would make every run report its end.
    """
    if name.startswith(RESERVED_PREFIXES):
        return [name]
    levels = [i for i, char in enumerate(name[:-1]) if char in "./" and i > 0][:MAX_LEVELS]
    return [name, *(f"{name[: i + 1]}*" for i in reversed(levels)), "*"]


def shard_of_event(name_or_pattern: str) -> int:
    """Return the shard that holds the triggers with a name or pattern."""
    return _shard(f"event {name_or_pattern}")


def shard_of_workflow(workflow_id: str) -> int:
    """Return the shard that lists the apps that have a workflow with an id."""
    return _shard(f"workflow {workflow_id}")


def shard_of_app(app: str) -> int:
    """Return the shard that lists the shards of an app."""
    return _shard(f"app {app}")


def _shard(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode(errors="surrogatepass")).digest()[:4]) % SHARDS


class Part(BaseModel):
    """Part of an app's list in one shard.

    Attributes:
        task_queue: The app's task queue.
        triggers: For each trigger: the workflow, the name or pattern, the expression, and whether it is a bridge.
        workflows: The ids of the app's workflows that hash to the shard.
        shards: In the shard of the app's id: all shards that hold something of the app.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    task_queue: Id
    triggers: tuple[tuple[Id, str, str | None, bool], ...] = ()
    workflows: tuple[Id, ...] = ()
    shards: tuple[int, ...] = ()


def parts_of(app: AppList) -> dict[int, Part]:
    """Return an app's part for each shard; empty for an app without workflows."""
    if not app.workflows:
        return {}
    triggers: dict[int, list[tuple[str, str, str | None, bool]]] = {}
    workflows: dict[int, list[str]] = {}
    for listed, entry in app.events():
        assert entry.event is not None
        of_shard = triggers.setdefault(shard_of_event(entry.event), [])
        of_shard.append((listed.id, entry.event, entry.if_exp, entry.bridge))
    for listed in app.workflows:
        workflows.setdefault(shard_of_workflow(listed.id), []).append(listed.id)
    home = shard_of_app(app.id)
    numbers = sorted({home, *triggers, *workflows})
    return {
        number: Part(
            task_queue=app.task_queue,
            triggers=tuple(triggers.get(number, ())),
            workflows=tuple(workflows.get(number, ())),
            shards=tuple(numbers) if number == home else (),
        )
        for number in numbers
    }


# --- fields of the memo --------------------------------------------------------------------------------------------


def generation_of(field: Payload) -> int:
    """Return the generation of the list that a field belongs to."""
    text = field.metadata.get(GENERATION_METADATA, b"")
    return int(text) if text.isdigit() and len(text) < 20 else 0


def is_possible(generation: int) -> bool:
    """Return whether a list can have a generation, which is about the time of its registration in milliseconds.

    A forged generation far in the future would keep out all later lists.
    """
    return generation <= (workflow.now().timestamp() + _MAX_AHEAD_SECONDS) * 1000


def apps_in(memo: Mapping[str, Payload]) -> Iterator[tuple[str, Payload]]:
    """Yield the ids of the apps in a shard, each with its field."""
    for key, payload in memo.items():
        if key.startswith(APP_KEY):
            yield key.removeprefix(APP_KEY), payload


def field_of(memo: Mapping[str, Payload], app: str) -> Payload | None:
    """Return an app's field in a shard."""
    return memo.get(APP_KEY + app)


def size_of(fields: Iterable[tuple[str, Payload]]) -> int:
    """Return the size of fields in a memo in bytes."""
    return sum(len(app.encode(errors="surrogatepass")) + field.ByteSize() + 16 for app, field in fields)


# --- the workflow --------------------------------------------------------------------------------------------------


class Placement(BaseModel):
    """An app's field for a shard.

    Attributes:
        app: The app's id.
        generation: The generation of the list that the field belongs to.
        field: The field as a serialized payload; None removes it.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    app: Id
    generation: int
    field: Base64Bytes | None = None


@workflow.defn(name=SHARD, sandboxed=False)
@of_kind("system")
class ShardWorkflow:
    """Holds one field per app in its memo."""

    def __init__(self) -> None:
        self._updates = 0

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(
            lambda: (
                (self._updates >= _UPDATES_PER_EXECUTION or workflow.info().is_continue_as_new_suggested())
                and workflow.all_handlers_finished()
            )
        )
        # Without a memo, or with an empty one, Temporal keeps the memo that this execution was started with, without
        # later upserts.
        memo = {key: RawValue(payload) for key, payload in workflow.info().raw_memo.items()}
        workflow.continue_as_new(memo={**memo, VERSION_KEY: 1})

    @workflow.update(name=PLACE)
    @of_any_count
    def place(self, message: RawValue) -> None:
        """Replace or remove an app's field, unless the shard has a field of a later list."""
        if is_sealed(message.payload):  # senders do not encrypt it, and the shards' workers have no keys
            raise refuse("placement")
        placement = read(Placement, message_json(message), "placement")
        field = None if placement is None else _field(placement)
        if placement is None or (placement.field is not None and field is None):
            raise refuse("placement")
        if not is_possible(placement.generation):
            raise refuse("placement of a list registered by now")
        memo = workflow.info().raw_memo
        existing = field_of(memo, placement.app)
        before = 0 if existing is None else generation_of(existing)
        self._updates += 1
        if is_possible(before) and before > placement.generation:
            return
        if field is not None:
            others = [(app, other) for app, other in apps_in(memo) if app != placement.app]
            check_size(placement.app, others, field)
        workflow.upsert_memo({APP_KEY + placement.app: None if field is None else RawValue(field)})


def _field(placement: Placement) -> Payload | None:
    """Return the payload of a placement, marked with its generation; None if it is not one."""
    if placement.field is None:
        return None
    try:
        payload = Payload.FromString(placement.field)
    except Exception:  # from protobuf; the class depends on the implementation
        return None
    payload.metadata[GENERATION_METADATA] = str(placement.generation).encode()
    return payload


def check_size(app: str, others: Iterable[tuple[str, Payload]], field: Payload) -> None:
    """Check that an app's field fits into a shard.

    Raises:
        ApplicationError: The field does not fit; the message has the app, its size and the limit.
    """
    others = list(others)
    own, rest = size_of([(app, field)]), size_of(others)
    if own + rest > MAX_SHARD_BYTES:
        largest = sorted(others, key=lambda other: other[1].ByteSize(), reverse=True)[:3]
        beside = ", ".join(f"{name!r} with {payload.ByteSize():,}" for name, payload in largest)
        raise ApplicationError(
            f"app {app!r} does not fit into the catalog: its triggers take {own:,} bytes of a shard in which other "
            f"apps take {rest:,} ({beside or 'none'}), and the limit of a shard is {MAX_SHARD_BYTES:,}; shorten its "
            "expressions, or give some apps another namespace",
            type=CATALOG_FULL,
            non_retryable=True,
        )
