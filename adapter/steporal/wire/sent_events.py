"""Results of sending events in the form that a run stores: usually little larger than the ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..events import SendEventResult, StartedRun
from ..types import JSON


def pack(result: SendEventResult) -> dict[str, JSON]:
    """Return a result as JSON: runs by app and workflow, with the positions of their events; null means all events."""
    by_workflow: dict[tuple[str, str], list[str]] = {}
    for run in result.runs:
        by_workflow.setdefault((run.app, run.workflow), []).append(run.event_id)
    packed: dict[str, JSON] = {"ids": result.ids}
    if by_workflow:
        packed["runs"] = [[*workflow, _positions(ids, result.ids)] for workflow, ids in by_workflow.items()]
    if result.awaited:
        packed["awaited"] = _positions(result.awaited, result.ids)
    return packed


def unpack(batches: Iterable[Mapping[str, JSON]]) -> SendEventResult:
    """Return the result that was packed in one or more batches."""
    ids: list[str] = []
    runs: list[StartedRun] = []
    awaited: list[str] = []
    for batch in batches:
        of_batch = batch["ids"]
        ids += of_batch
        by_event: dict[int, list[StartedRun]] = {}
        for app, workflow, positions in batch.get("runs", ()):
            for position in _all_or(positions, of_batch):
                by_event.setdefault(position, []).append(StartedRun.of(app, workflow, of_batch[position]))
        runs += [run for position in sorted(by_event) for run in by_event[position]]
        if "awaited" in batch:
            awaited += [of_batch[position] for position in _all_or(batch["awaited"], of_batch)]
    return SendEventResult(ids=ids, runs=runs, awaited=awaited)


def _positions(some: Sequence[str], ids: Sequence[str]) -> list[int] | None:
    wanted = set(some)
    positions = [position for position, id in enumerate(ids) if id in wanted]
    return None if len(positions) == len(ids) else positions


def _all_or(positions: list[int] | None, ids: Sequence[str]) -> Iterable[int]:
    return range(len(ids)) if positions is None else positions
