"""What really happened, in an SQLite database outside: no kill of a worker or of the server touches it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from temporalio import activity

DATABASE = "CHAOS_DATABASE"
"""The environment variable by which workers know where the database is."""

Phase = Literal["begin", "end", "failed"]

_TABLES = """
create table if not exists effects (
    number integer primary key,
    at real not null,
    workflow_id text not null,
    run_id text not null,
    workflow text not null,
    step text not null,
    attempt integer not null,
    is_local integer not null,
    pid integer not null,
    phase text not null,
    detail text not null
);
create index if not exists effects_of_run on effects (workflow_id, step);
create index if not exists effects_by_detail on effects (workflow, detail);
create table if not exists sent (at real, what text, name text, id text, told text);
create table if not exists kills (at real, kind text, name text, pid integer, back real);
"""


@dataclass(frozen=True, slots=True)
class Effect:
    """A row that a step function has written.

    Attributes:
        at: When, by :func:`clock`.
        step: The activity's id: the step's key.
        attempt: The activity's attempt, from 1.
        is_local: Whether it is a local activity, whose attempts begin again at 1 on another worker.
        pid: The worker's process.
        phase: Whether the function began, ended, or raised.
        detail: What the function was asked to note.
    """

    number: int
    at: float
    workflow_id: str
    run_id: str
    workflow: str
    step: str
    attempt: int
    is_local: bool
    pid: int
    phase: Phase
    detail: str


def clock() -> float:
    """The machine's seconds since some moment, the same in all processes, also in those whose clock is set wrong."""
    return time.monotonic()


def connect(path: Path | str) -> sqlite3.Connection:
    """The database, with its tables."""
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    # Without waiting for the disk: only the end of the machine itself could lose a row.
    database.executescript(f"pragma journal_mode = wal; pragma synchronous = off; {_TABLES}")
    return database


class Effects:
    """The database, as those read it who judge."""

    def __init__(self, path: Path) -> None:
        self._database = connect(path)

    def close(self) -> None:
        self._database.close()

    def all(self) -> Iterator[Effect]:
        """Every row, in the order of writing."""
        yield from self._rows("order by number")

    def after(self, number: int) -> list[Effect]:
        """The rows after the one with this number."""
        return list(self._rows("where number > ? order by number", number))

    def last(self) -> int:
        """The number of the last row."""
        return int(self._database.execute("select coalesce(max(number), 0) from effects").fetchone()[0])

    def count(self, workflow_id: str, step: str, phase: Phase) -> int:
        """How often a step of a run has begun, ended or raised, in any of its activities: ``key``, ``key#2``, …"""
        which = "where workflow_id = ? and (step = ? or step glob ? || '#[0-9]*') and phase = ?"
        return sum(1 for _ in self._rows(which, workflow_id, step, step, phase))

    def runs(self, workflow: str, detail: str) -> list[str]:
        """The workflow ids of the runs that have noted something."""
        found = self._database.execute(
            "select distinct workflow_id from effects where workflow = ? and detail = ? and phase = 'end'",
            (workflow, detail),
        )
        return [row[0] for row in found]

    def note_sent(self, what: str, name: str, id: str, told: str) -> None:
        """Write down what somebody sent, and what was answered."""
        self._database.execute("insert into sent values (?, ?, ?, ?, ?)", (clock(), what, name, id, told))

    def note_kill(self, kind: str, name: str, pid: int, at: float, back: float) -> None:
        """Write down what was killed, and when it was back."""
        self._database.execute("insert into kills values (?, ?, ?, ?, ?)", (at, kind, name, pid, back))

    def count_sent(self, what: str) -> int:
        """How many events or signals were sent by those who judge."""
        return int(self._database.execute("select count(*) from sent where what = ?", (what,)).fetchone()[0])

    def _rows(self, which: str, *values: Any) -> Iterator[Effect]:
        for row in self._database.execute(f"select * from effects {which}", values):
            yield Effect(*row)


# --- in workers ----------------------------------------------------------------------------------------------------


@contextmanager
def happening(detail: str = "") -> Iterator[activity.Info]:
    """Write down that a step function begins, and how it ends."""
    info = activity.info()
    database = connect(os.environ[DATABASE])
    try:
        _write(database, info, "begin", detail)
        try:
            yield info
        except BaseException:
            _write(database, info, "failed", detail)
            raise
        _write(database, info, "end", detail)
    finally:
        database.close()


def _write(database: sqlite3.Connection, info: activity.Info, phase: Phase, detail: str) -> None:
    row = (
        clock(),
        info.workflow_id,
        info.workflow_run_id,
        info.workflow_type,
        info.activity_id,
        info.attempt,
        info.is_local,
        os.getpid(),
        phase,
        detail,
    )
    database.execute("insert into effects values (null, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
