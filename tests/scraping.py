"""What Prometheus would read at `/metrics`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest

_LINE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_PART = re.compile(r"_(bucket|sum|count)$")


@dataclass(frozen=True)
class Sample:
    """One line."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Scrape:
    """One answer.

    Attributes:
        types: By name of the metric, what it is.
        helps: By name of the metric, what it says.
    """

    samples: list[Sample]
    types: dict[str, str]
    helps: dict[str, str]

    @classmethod
    def of(cls, text: str) -> Scrape:
        said: dict[str, dict[str, str]] = {"TYPE": {}, "HELP": {}}
        samples = []
        for line in text.splitlines():
            if line.startswith("# "):
                _, what, name, rest = line.split(" ", 3)
                said[what][name] = rest
            elif line:
                found = _LINE.fullmatch(line)
                assert found, line
                labels = dict(_LABEL.findall(found["labels"] or ""))
                samples.append(Sample(found["name"], labels, float(found["value"])))
        return cls(samples, said["TYPE"], said["HELP"])

    @property
    def names(self) -> set[str]:
        """The names of all samples, as expressions have them."""
        return {sample.name for sample in self.samples}

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        return sum(s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items())

    def by(self, name: str, *by: str, **labels: str) -> dict[str | tuple[str, ...], float]:
        """The sums of the samples that have these labels, by the values of other labels."""
        found: dict[str | tuple[str, ...], float] = {}
        for s in self.samples:
            if s.name == name and labels.items() <= s.labels.items():
                key = s.labels[by[0]] if len(by) == 1 else tuple(s.labels[label] for label in by)
                found[key] = found.get(key, 0) + s.value
        return found

    def labels(self, metric: str) -> set[str]:
        """The labels that a metric has anywhere, but for `le`."""
        samples = [s for s in self.samples if s.name == metric or _PART.sub("", s.name) == metric]
        return {label for s in samples for label in s.labels} - {"le"}


async def scrape(port: int) -> Scrape:
    """Ask for the metrics of a process."""
    async with httpx.AsyncClient() as http:
        answered = await http.get(f"http://127.0.0.1:{port}/metrics")
    assert answered.status_code == 200
    assert answered.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Scrape.of(answered.text)


async def scraped(port: int, until: Callable[[Scrape], bool]) -> Scrape:
    """Ask until something is so."""
    found = await scrape(port)
    try:
        async with asyncio.timeout(60):
            while not until(found):
                await asyncio.sleep(0.1)
                found = await scrape(port)
    except TimeoutError:
        pytest.fail("it has not become so:\n" + "\n".join(map(str, found.samples)))
    return found
