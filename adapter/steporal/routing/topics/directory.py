"""Directory of the names and patterns of events that runs wait for: 32 Temporal workflows, ``steporal.topics/{shard}``.

The memo of a shard lists the topics that hash to the shard. A sender reads it with one ``describe`` call, which needs
no worker, and sends events only to the topics that exist. A subscription adds its topic to the directory, and a
topic confirms its entry every twenty minutes while runs wait. An entry that nothing confirms for a month is removed in
two steps. First it is marked as leaving: senders still use it, and subscriptions renew it. It is removed a day later.

A shard may not know all topics: it has just started, perhaps in place of one that was terminated or deleted, or there
are more names than it has room for. Its memo then has the field ``unlisted``, and senders also send to topics that it
does not list.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from temporalio import workflow
from temporalio.common import RawValue

from ...expressions.budget import Key
from ...sdk.any_arguments import of_any_count
from ...sdk.wait_until import wait_until
from ...types import JSON
from ...values.converter import dumps, to_raw
from ...values.encrypted import UNREADABLE
from ...wire.limits import FAR_FUTURE
from ...wire.names import DIRECTORY, LIST_TOPIC, TOPIC_KEY, UNLISTED_KEY, VERSION_KEY
from ...workflow_kinds import of_kind
from ..messages import drop, memo_value, message_json, read, refuse

SHARDS = 32


MAX_PATHS = 10
"""Limit of listed paths. A wait that compares another path counts as a wait without an equality."""

MAX_PARTS = 512
MORE_PARTS = 8
"""Factor by which the number of parts grows."""

# What a live directory replays with: other values need ``workflow.patched``.
_LOOK = timedelta(minutes=30)  # time is counted in looks, so that months without a worker do not remove anything
_LOOKS_KEPT = 30 * 48
_LOOKS_SUPERSEDED = 2 * 48  # for parts that newer, more numerous parts have replaced
_LOOKS_LEAVING = 48
_LOOKS_UNLISTED = 1  # a topic that relies on `unlisted` confirms its entry before the note is removed
_TAKEN_PER_EXECUTION = 100  # messages and looks
_MAX_BYTES = 256 * 1024  # of names: every sender reads them; Temporal's limit is 2 MiB
_MOST_BYTES = 2 * _MAX_BYTES  # with topics in parts, which senders can find only here
_BYTES_OF_A_TOPIC = 100

_MAX_NAME = 4096
_MAX_PATH = 64
_MAX_PATH_BYTES = 2_000

_SEGMENT = re.compile(r".[^./]*", re.DOTALL)

_NONE = to_raw(None)


class Path(BaseModel):
    """A path in events that waits of a topic compare.

    Attributes:
        names: The keys along the path.
        since: When it was listed, in seconds since the epoch.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    names: tuple[str, ...]
    since: float = Field(allow_inf_nan=False, le=FAR_FUTURE)


class Parts(BaseModel):
    """Parts of a topic, each a Temporal workflow.

    Attributes:
        count: The number of parts: 1, 8, 64 or 512.
        since: When they were listed, in seconds since the epoch.
        paths: The paths that their waits compare. A wait with an equality is in the part of its value.
        others: The time when the first wait without an equality was listed; such waits may be in any part.
        leaving: Whether they will be removed unless they are listed again.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    count: int = Field(ge=1, le=MAX_PARTS)
    since: float = Field(allow_inf_nan=False, le=FAR_FUTURE)
    paths: tuple[Path, ...] = Field(default=(), max_length=MAX_PATHS)
    others: float | None = Field(default=None, allow_inf_nan=False, le=FAR_FUTURE)
    leaving: bool = False


class Entry(BaseModel):
    """Entry of a topic: the parts it started with and, after it has grown, newer ones."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    parts: tuple[Parts, ...] = Field(max_length=8)

    @property
    def newest(self) -> Parts:
        """Parts that new waits go to."""
        return max(self.parts, key=lambda parts: parts.count)

    def of(self, count: int) -> Parts | None:
        """Return the parts with a given count."""
        return next((parts for parts in self.parts if parts.count == count), None)

    def with_parts(self, changed: Parts) -> Entry:
        """Return the entry with some parts added, or replaced."""
        kept = [parts for parts in self.parts if parts.count != changed.count]
        return Entry(parts=tuple(sorted([*kept, changed], key=lambda parts: parts.count)))


class Unlisted(BaseModel):
    """Note that topics exist that a shard does not list.

    Attributes:
        since: When the note was made, in seconds since the epoch.
        leaving: Whether it will be removed soon, so that new topics must be listed.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    since: float = Field(allow_inf_nan=False, le=FAR_FUTURE)
    leaving: bool = False


class Wanted(BaseModel):
    """Request to list a topic.

    Attributes:
        topic: The name or pattern.
        count: The number of parts to list.
        path: A path that waits in them compare.
        others: Whether they have waits without an equality.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    topic: str = Field(min_length=1, max_length=_MAX_NAME)
    count: int = Field(default=1, ge=1, le=MAX_PARTS)
    path: tuple[str, ...] | None = Field(default=None, max_length=_MAX_PATH)
    others: bool = False

    @model_validator(mode="after")
    def _path_is_short(self) -> Wanted:
        if not is_listable(self.path or ()):
            raise ValueError("the path is too long to be listed")
        return self


def is_listable(path: tuple[str, ...]) -> bool:
    """Return whether a path may be listed. A wait that compares a longer one counts as a wait without an equality."""
    return len(path) <= _MAX_PATH and _bytes_of(path) <= _MAX_PATH_BYTES


def _bytes_of(path: tuple[str, ...]) -> int:
    return sum(len(name.encode(errors="surrogatepass")) + 10 for name in path)


def shard_of(topic: str) -> int:
    """Return the shard that lists a topic.

    All patterns that match an event begin with the same segment, by which they are in one shard. So a sender reads two
    shards for an event: that of its name, and that of its patterns.
    """
    segment = _SEGMENT.match(topic) if topic.endswith("*") else None
    hashed = segment.group() if segment is not None else topic
    return zlib.crc32(hashed.encode(errors="surrogatepass")) % SHARDS


def directory_id(shard: int) -> str:
    """Return the Temporal workflow id of a shard."""
    return f"{DIRECTORY}/{shard}"


def part_of(path: tuple[str, ...], key: Key, count: int) -> int:
    """Return the part of the waits that compare a path with a value."""
    return zlib.crc32(dumps([*path, *key])) % count


def read_entries(memo: Mapping[str, Any]) -> tuple[dict[str, Entry], list[str]]:
    """Return the topics in a memo, and the keys of entries that are not valid."""
    entries: dict[str, Entry] = {}
    unreadable = []
    for key, value in memo.items():
        if not key.startswith(TOPIC_KEY) or value is None:
            continue
        try:
            entries[key.removeprefix(TOPIC_KEY)] = Entry.model_validate(value)
        except ValueError:
            unreadable.append(key)
    return entries, unreadable


def read_unlisted(memo: Mapping[str, Any]) -> Unlisted | None:
    """Return the note about unlisted topics in a memo.

    Raises:
        ValueError: The note is not valid.
    """
    value = memo.get(UNLISTED_KEY)
    return None if value is None else Unlisted.model_validate(value)


@workflow.defn(name=DIRECTORY, sandboxed=False)
@of_kind("system")
class DirectoryWorkflow:
    """Shard of the directory."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._unlisted: Unlisted | None = None
        self._looks: dict[str, int] = {}  # since the parts were last confirmed; by their keys
        self._size = 0
        self._taken = 0
        self._is_restored = False

    @workflow.run
    async def run(self, looks: RawValue = _NONE) -> None:
        """Run without end.

        Args:
            looks: For each key of parts, the number of looks since the last confirmation. The first execution has none,
                and does not know all topics.
        """
        self._restore()
        before = self._read_looks(looks)
        if before is None:
            self._set_unlisted()
        else:
            self._looks = before
        while not self._is_full():
            try:
                await wait_until(self._is_full, timeout=_LOOK, summary="remove entries that nothing confirms")
            except TimeoutError:
                self._look()
        await workflow.wait_condition(workflow.all_handlers_finished)
        memo = {key: memo_value(key) for key in workflow.info().raw_memo if _is_ours(key)}
        memo = {key: value for key, value in memo.items() if value is not None}
        # With an empty memo, Temporal keeps the memo that this execution was started with.
        workflow.continue_as_new(to_raw({"looks": self._looks}), memo={**memo, VERSION_KEY: 1})

    @workflow.update(name=LIST_TOPIC, description="Lists topics, or confirms that runs wait.")
    @of_any_count
    def list_topics(self, wanted: RawValue) -> None:
        """List topics; confirm those that are listed."""
        self._restore()
        items = message_json(wanted)
        if not isinstance(items, list):
            raise refuse("list of topics")
        self._taken += 1
        for item in items:
            if (one := read(Wanted, item, "request to list a topic")) is not None:
                self._list(one)

    def _is_full(self) -> bool:
        return self._taken >= _TAKEN_PER_EXECUTION or workflow.info().is_continue_as_new_suggested()

    def _restore(self) -> None:
        """Read the memo once. An update may be handled before :meth:`run` starts."""
        if self._is_restored:
            return
        self._is_restored = True
        memo = {key: memo_value(key, UNREADABLE) for key in workflow.info().raw_memo}
        if VERSION_KEY not in memo:  # a foreign client has started it; without a version, readers assume it has ended
            workflow.upsert_memo({VERSION_KEY: 1})
        self._entries, unreadable = read_entries(memo)
        for key in unreadable:
            drop("topic in the directory", key)
            workflow.upsert_memo({key: None})
        self._size = sum(_size_of(topic, entry) for topic, entry in self._entries.items())
        try:
            self._unlisted = read_unlisted(memo)
        except ValueError as err:
            drop("note about unlisted topics", err)
            self._set_unlisted()
        else:
            if unreadable:
                self._set_unlisted()

    def _read_looks(self, looks: RawValue) -> dict[str, int] | None:
        """Return the looks of the previous execution, or None in the first execution."""
        return _looks_in(message_json(looks)) if workflow.info().continued_run_id else None

    def _list(self, wanted: Wanted) -> None:
        topic, now = wanted.topic, workflow.time()
        entry = self._entries.get(topic)
        if entry is None and self._size + _size_of(topic) > _MAX_BYTES and wanted.count == 1:
            self._set_unlisted()
            return
        if self._size > _MOST_BYTES and entry is None:
            drop("topic in the directory", "the directory is full")
            return
        before = entry.of(wanted.count) if entry is not None else None
        parts = before or Parts(count=wanted.count, since=now)
        if parts.leaving:
            parts = parts.model_copy(update={"leaving": False})
        if wanted.count > 1:
            parts = _with_way(parts, wanted, now, has_room=self._size < _MOST_BYTES)
        self._looks[_key_of(topic, wanted.count)] = 0
        if parts != before:
            self._put(topic, (entry or Entry(parts=())).with_parts(parts))

    def _put(self, topic: str, entry: Entry | None) -> None:
        """Set the entry of a topic, or remove it."""
        if (before := self._entries.get(topic)) is not None:
            self._size -= _size_of(topic, before)
        if entry is None:
            self._entries.pop(topic, None)
        else:
            self._entries[topic] = entry
            self._size += _size_of(topic, entry)
        value = None if entry is None else entry.model_dump(mode="json", exclude_defaults=True)
        workflow.upsert_memo({TOPIC_KEY + topic: value})

    def _set_unlisted(self) -> None:
        """Add or renew the note that unlisted topics exist."""
        self._looks[UNLISTED_KEY] = 0
        if self._unlisted is None or self._unlisted.leaving:
            since = workflow.time() if self._unlisted is None else self._unlisted.since
            self._write_unlisted(Unlisted(since=since))

    def _write_unlisted(self, unlisted: Unlisted | None) -> None:
        self._unlisted = unlisted
        value = None if unlisted is None else unlisted.model_dump(mode="json", exclude_defaults=True)
        workflow.upsert_memo({UNLISTED_KEY: value})

    # --- entries that nothing confirms ------------------------------------------------------------------------------

    def _look(self) -> None:
        self._taken += 1
        for topic, entry in list(self._entries.items()):
            self._look_at(topic, entry)
        if self._unlisted is None:
            return
        looks = self._looks[UNLISTED_KEY] = self._looks.get(UNLISTED_KEY, 0) + 1
        if looks > 2 * _LOOKS_UNLISTED and self._unlisted.leaving:
            self._write_unlisted(None)
        elif looks > _LOOKS_UNLISTED and not self._unlisted.leaving:
            self._write_unlisted(self._unlisted.model_copy(update={"leaving": True}))

    def _look_at(self, topic: str, entry: Entry) -> None:
        kept: list[Parts] = []
        for parts in entry.parts:
            key = _key_of(topic, parts.count)
            looks = self._looks[key] = self._looks.get(key, 0) + 1
            allowed = _LOOKS_KEPT if parts is entry.newest else _LOOKS_SUPERSEDED
            if looks > allowed + _LOOKS_LEAVING and parts.leaving:
                del self._looks[key]
            elif looks > allowed:
                kept.append(parts.model_copy(update={"leaving": True}))
            else:
                kept.append(parts)
        if tuple(kept) != entry.parts:
            self._put(topic, Entry(parts=tuple(kept)) if kept else None)


def _with_way(parts: Parts, wanted: Wanted, now: float, *, has_room: bool) -> Parts:
    """Return parts that list the path of a subscription, or that they have waits without an equality."""
    paths = parts.paths
    is_other = wanted.others
    if wanted.path is not None and all(path.names != wanted.path for path in paths):
        if len(paths) < MAX_PATHS and has_room:
            paths = (*paths, Path(names=wanted.path, since=now))
        else:
            is_other = True
    others = now if is_other and parts.others is None else parts.others
    return parts.model_copy(update={"paths": paths, "others": others})


def _size_of(topic: str, entry: Entry | None = None) -> int:
    paths = [path.names for parts in entry.parts for path in parts.paths] if entry is not None else []
    return _BYTES_OF_A_TOPIC + len(topic.encode(errors="surrogatepass")) + sum(map(_bytes_of, paths))


def _is_ours(key: str) -> bool:
    return key.startswith(TOPIC_KEY) or key == UNLISTED_KEY


def _key_of(topic: str, count: int) -> str:
    return f"{count} {topic}"


def _looks_in(data: JSON) -> dict[str, int]:
    looks = data.get("looks") if isinstance(data, dict) else None
    if not isinstance(looks, dict):
        return {}
    return {key: number for key, number in looks.items() if isinstance(number, int)}
