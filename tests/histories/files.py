"""The files of recorded histories: JSON as Temporal exports it, compact, and without what tells of the machine."""

from __future__ import annotations

import base64
import gzip
import json
import sys
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from temporalio.api.failure.v1 import Failure as FailureMessage
from temporalio.client import WorkflowHistory

import steporal
from steporal.values.converter import dumps

FOLDER = Path(__file__).parent
SUFFIX = ".json.gz"

_ROOT = FOLDER.parent.parent
_PLACES = {str(_ROOT): "steporal", sys.prefix: "python", sys.base_prefix: "python"}


def folder_of_this_version() -> Path:
    """Where this version's recordings are."""
    return FOLDER / steporal.__version__


def recorded() -> list[Path]:
    """All recordings, of all versions."""
    return sorted(FOLDER.glob(f"*/*{SUFFIX}"))


def read(file: Path) -> WorkflowHistory:
    """The history in a file."""
    history = WorkflowHistory.from_json("", gzip.decompress(file.read_bytes()).decode())
    started = history.events[0].workflow_execution_started_event_attributes
    return WorkflowHistory(started.workflow_id, history.events)


def write(file: Path, history: WorkflowHistory) -> None:
    """Put a history into a file."""
    text = json.dumps(_scrubbed(history.to_json_dict()), separators=(",", ":"), sort_keys=True)
    file.write_bytes(gzip.compress(text.encode(), mtime=0))


def last_word(history: WorkflowHistory) -> str:
    """How a history ends: the kind of its last event, and what the workflow returned."""
    last = history.events[-1]
    kind = str(last.WhichOneof("attributes")).removesuffix("_event_attributes")
    result = last.workflow_execution_completed_event_attributes.result.payloads
    return " ".join([kind, *(payload.data.decode()[:80] for payload in result)])


def _scrubbed(value: Any) -> Any:
    if isinstance(value, dict):
        if "metadata" in value and isinstance(value.get("data"), str):
            return {**value, "data": _scrubbed_payload(value["data"])}
        if "stack" in value and isinstance(cause := value.get("cause"), str):
            value = {**value, "cause": _scrubbed_cause(cause)}
        return {key: _scrubbed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_scrubbed(item) for item in value]
    return _without_places(value) if isinstance(value, str) else value


def _scrubbed_payload(data: str) -> str:
    try:
        value = json.loads(base64.b64decode(data))
    except ValueError:  # compressed
        return data
    return base64.b64encode(dumps(_scrubbed(value))).decode()


def _scrubbed_cause(text: str) -> str:
    """The cause of a failed step, as a run that continues as new carries it."""
    message = FailureMessage.FromString(base64.b64decode(text))
    scrubbed = ParseDict(_scrubbed(MessageToDict(message)), FailureMessage())
    return base64.b64encode(scrubbed.SerializeToString()).decode()


def _without_places(text: str) -> str:
    for place, name in _PLACES.items():
        text = text.replace(place, name)
    return text
