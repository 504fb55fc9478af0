"""Log of runs that cannot continue: one line for each, although Temporal retries them for ever."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

MAX_LOGGED = 10_000
"""Number of logged lines that a process remembers."""

logger: logging.Logger = logging.getLogger("steporal")

_logged: OrderedDict[tuple[str, str], None] = OrderedDict()
_lock = threading.Lock()  # runs are executed in several threads


def is_news(run: str, text: str) -> bool:
    """Return whether this process sees a text about a run for the first time."""
    key = (run, text)
    with _lock:
        is_new = key not in _logged
        _logged[key] = None
        _logged.move_to_end(key)
        if len(_logged) > MAX_LOGGED:
            _logged.popitem(last=False)
    return is_new


def log_once(run_id: str, workflow_id: str, message: str) -> None:
    """Log why a run cannot continue, unless this process has already logged it."""
    if is_news(run_id, message):
        logger.error("%s (workflow id %r, run id %s)", message, workflow_id, run_id)
