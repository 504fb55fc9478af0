"""Arguments of waits: names of events, and an expression."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from ..errors import DefinitionError
from ..events import check_event_name
from . import expression

MAX_EVENTS = 20

_FIELDS = ("data", "id", "name", "ts", "v")
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def check_events(event: object) -> tuple[str, ...]:
    """Return the names and patterns of events, each once.

    Raises:
        ValueError: A name or pattern is not valid; the message has it.
    """
    names = [event] if isinstance(event, str) else event
    if not isinstance(names, Sequence) or isinstance(names, bytes) or not names:
        raise ValueError(f"event is {event!r}; it takes a name, such as 'order.paid', or a list of names")
    if len(names) > MAX_EVENTS:
        raise ValueError(f"event has {len(names)} names; the maximum is {MAX_EVENTS}")
    return tuple(dict.fromkeys(check_event_name(name, pattern=True) for name in names))


def _suggested(first: str, rest: str) -> str | None:
    """Return the path that the user probably meant, or None."""
    if first in ("event", "async"):
        return rest if rest.partition(".")[0] in _FIELDS else None
    close = difflib.get_close_matches(first, _FIELDS, n=1)
    return ".".join(filter(None, [close[0], rest])) if close else None


def check_expression(if_exp: object, match: object) -> str | None:
    """Return the expression of a wait, from ``if_exp`` or ``match``.

    Raises:
        ValueError: The expression is not valid, or both are given.
    """
    if match is not None:
        if if_exp is not None:
            raise ValueError("both if_exp and match are given; match='data.id' is short for an if_exp")
        if not isinstance(match, str) or not _PATH.fullmatch(match):
            raise ValueError(f"match is {match!r}; it takes a path in both events, such as 'data.order_id'")
        first, _, rest = match.partition(".")
        if first not in _FIELDS:
            path = _suggested(first, rest) or f"data.{match}"
            raise ValueError(
                f"match is {match!r}; it takes a path that both events have, from {', '.join(_FIELDS)}: {path!r}"
            )
        return f"event.{match} == async.{match}"
    if if_exp is None:
        return None
    if not isinstance(if_exp, str):
        raise TypeError(f"if_exp is {if_exp!r}; it takes CEL, such as 'async.data.id == event.data.id'")
    try:
        expression.check_expression(if_exp)
    except DefinitionError as err:
        raise ValueError(f"if_exp: {err}") from None
    return if_exp
