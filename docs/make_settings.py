"""Writes the table of all settings into docs/settings.md; a test checks that it is up to date."""

from __future__ import annotations

import re
from pathlib import Path

from steporal_workers.settings import markdown_table

TARGET = Path(__file__).with_name("settings.md")
TABLE = re.compile(r"\| variable \| flags \|.*?\n(?=\n|\Z)", re.DOTALL)

TARGET.write_text(TABLE.sub(lambda _: markdown_table(), TARGET.read_text()))
