"""The user's line of a stack trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from steporal_workers.stacks import own_place

SITE = "/srv/.venv/lib/python3.12/site-packages"


def stack(*files: str) -> str:
    return "\n".join(f'  File "{file}", line {n}, in f{n}\n    code {n}\n    ~~~^^^' for n, file in enumerate(files, 1))


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (["/srv/app/shop.py", "/srv/app/prices.py"], 2),
        (["/srv/app/shop.py", f"{SITE}/httpx/_client.py"], 1),
        (["/srv/app/shop.py", "/usr/lib/python3.12/json/decoder.py", "<frozen importlib>"], 1),
        ([f"{SITE}/crm/shop.py", f"{SITE}/crm/http.py", f"{SITE}/httpx/_client.py"], 2),
        ([f"{SITE}/crm/shop.py", f"{SITE}/crmlib/x.py"], 1),
        (["C:\\\\app\\\\shop.py", "C:\\\\Python312\\\\Lib\\\\site-packages\\\\httpx\\\\x.py"], 1),
    ],
)
def test_the_innermost_line_of_the_users_own_code_is_found(files: list[str], line: int) -> None:
    place = own_place(stack(*files))
    assert place is not None
    assert (place.line, place.function, place.source) == (line, f"f{line}", f"code {line}")


def test_a_line_without_its_source_is_a_place() -> None:
    place = own_place('  File "/srv/a.py", line 3, in f\n  File "/srv/b.py", line 4, in g')
    assert place is not None
    assert place.lines == ["  /srv/b.py:4 in g"]


def test_a_file_below_the_current_folder_is_shown_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = own_place(f'  File "{tmp_path}/app/shop.py", line 3, in f')
    assert str(place) == "app/shop.py:3 in f"


@pytest.mark.parametrize("text", ["", "a trace of another language\n    at Foo.bar(Foo.java:3)"])
def test_no_line_is_found_where_there_is_none(text: str) -> None:
    assert own_place(text) is None
