"""What a worker logs about runs that cannot go on: once for each, where Temporal tries them for ever."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

MAX_REMEMBERED = 10_000
"""How many lines a process remembers to have said."""

logger: logging.Logger = logging.getLogger("steporal")

_said: OrderedDict[tuple[str, str], None] = OrderedDict()
_changing = threading.Lock()  # runs are executed in several threads


def is_news(run: str, text: str) -> bool:
    """Whether a process is told something of a run for the first time."""
    key = (run, text)
    with _changing:
        is_new = key not in _said
        _said[key] = None
        _said.move_to_end(key)
        if len(_said) > MAX_REMEMBERED:
            _said.popitem(last=False)
    return is_new


def said_once(run_id: str, workflow_id: str, message: str) -> None:
    """Log why a run cannot go on, unless this process has done so."""
    if is_news(run_id, message):
        logger.error("%s (workflow id %r, run id %s)", message, workflow_id, run_id)
