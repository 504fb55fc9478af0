"""Writes the table of all metrics into docs/metrics.md; a test checks that it is up to date."""

from __future__ import annotations

import re
from pathlib import Path

from steporal.metrics import markdown_table

TARGET = Path(__file__).with_name("metrics.md")
TABLE = re.compile(r"\| metric \| type \|.*?\n(?=\n|\Z)", re.DOTALL)

TARGET.write_text(TABLE.sub(lambda _: markdown_table(), TARGET.read_text()))
