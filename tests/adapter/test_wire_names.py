"""What histories hold is in one file, which is compared with a table that only grows."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import steporal
from steporal.wire import names

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs"))

from make_wire_names import TARGET, page  # noqa: E402

VALUES = {value for name, value in vars(names).items() if name.isupper() and "steporal" in value}

OTHER_MEANINGS = {
    "events.py": {"steporal/"},  # names of events that only the system sends
    "public_names.py": {"steporal"},
    "routing/catalog/reading.py": {"steporal.catalog"},  # a logger
    "activities/threads.py": {"steporal-step"},  # a thread
    "observability/tracing/spans.py": {"steporal", "steporal.app"},  # attributes of spans
}
"""Where the same text is something else. ``steporal`` is the logger's name, too."""


def test_the_table_is_up_to_date() -> None:
    text = TARGET.read_text(encoding="utf-8")
    assert page(text, steporal.__version__) == text, "make docs writes it"


def test_a_name_of_a_released_version_stays() -> None:
    text = TARGET.read_text(encoding="utf-8")
    row = "| `steporal.run_step` | Runs a step's function. |"
    assert f"{row} {steporal.__version__} |" in text or f"{row} 0.1.0 |" in text
    before = text.replace("`steporal.run_step`", "`steporal.runs_step`")
    with pytest.raises(LookupError, match=r"histories of released versions have \['steporal.runs_step'\]"):
        page(before, "99.0.0")
    assert page(text, "99.0.0") == text


def test_no_other_code_spells_a_name() -> None:
    found = {
        (path, text)
        for path, text in _texts()
        if text in VALUES and text != names.SYSTEM_TASK_QUEUE and text not in OTHER_MEANINGS.get(path, ())
    }
    assert not found


def _texts() -> Iterator[tuple[str, str]]:
    for folder in (ROOT / "adapter" / "steporal", ROOT / "workers" / "steporal_workers"):
        for file in folder.rglob("*.py"):
            if file.parent.name != "wire":
                for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                    if isinstance(node, ast.Constant) and isinstance(node.value, str):
                        yield str(file.relative_to(folder)), node.value
