"""Escaping of untrusted text, so that it cannot move a terminal's cursor or start a new line in a log."""

from __future__ import annotations

import re

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0, C1 and bidirectional controls, line separators that only some programs know, and lone surrogates, which no
terminal's encoding can represent; but neither tabs nor new lines."""


def printable(text: str) -> str:
    r"""Return a text with its controls escaped as ``\u001b``, also within JSON; tabs and new lines stay."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_entry(text: str) -> str:
    """Return a text for a log: printable, and with further lines indented, so that none looks like an entry."""
    return printable(text).replace("\n", "\n  ")
