"""The documentation as a site: it builds, each page is in its navigation, and no link leads nowhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml
from blocks import ROOT


def test_the_site_builds_and_its_links_lead_somewhere() -> None:
    subprocess.run([sys.executable, ROOT / "docs/make_site.py"], cwd=ROOT, check=True, capture_output=True)
    zensical = Path(sys.executable).with_name("zensical")
    built = subprocess.run(
        [zensical, "build", "--strict", "--clean"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    site = ROOT / "build/site"
    pages = {page.name: page.read_text(encoding="utf-8") for page in site.glob("*.html")}
    assert (site / "search.json").stat().st_size > 100_000
    broken = []
    for name, text in pages.items():
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            path, _, anchor = target.partition("#")
            if "://" in target or target.startswith(("mailto:", "data:")) or name == "404.html":
                continue
            file = site / path.removeprefix("./") if path else site / name
            if not file.exists() or (anchor and file.suffix == ".html" and f'id="{anchor}"' not in pages[file.name]):
                broken.append(f"{name}: {target}")
    assert not broken


def test_each_page_is_in_the_navigation_once() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = list(_pages(yaml.safe_load(config.replace("!!python/name:", ""))["nav"]))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} | {"index.md", "changelog.md"}
    assert sorted(named) == sorted(pages)


def _pages(nav: object) -> list[str]:
    match nav:
        case str():
            return [nav]
        case list():
            return [page for part in nav for page in _pages(part)]
        case dict():
            return [page for part in nav.values() for page in _pages(part)]
    return []
