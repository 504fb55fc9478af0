"""Writes docs/reference.md from the docstrings of the public API; ``--check`` only says whether it is up to date."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_overloads

import steporal
from steporal import context, errors

TARGET = Path(__file__).with_name("reference.md")

SECTIONS: dict[str, list[str]] = {
    "Define": [
        "Client",
        "Workflow",
        "event_trigger",
        "cron_trigger",
        "reference",
        "WorkflowExt",
        "CancelOn",
        "RunFailure",
    ],
    "In a handler": ["Context", "Input", "Step", "StepExt", "Listener"],
    "Events and signals": [
        "SentEvent",
        "ReceivedEvent",
        "SendEventResult",
        "StartedRun",
        "ReceivedSignal",
        "SendSignalResult",
    ],
    "HTTP": ["FetchResponse", "secret", "EventSink", "InngestSink"],
    "Runs": ["Run"],
}

INSIDE: dict[str, dict[str, Any]] = {
    "Context": {"ctx.ext": context.ContextExt},
    "Input": {"ctx.input.ext": context.InputExt},
}
"""Classes that only an attribute leads to, by the class that has it."""

IN_PASSING = {
    "CronTrigger",
    "Duration",
    "EventTrigger",
    "FailedWith",
    "InputExt",
    "RetryPolicy",
    "Secret",
    "WorkflowReference",
}
"""Names that the page explains where they are returned or taken."""

INTERNAL = {"Client.app", "Client.sending", "StartedRun.of", "Workflow.is_bridge"}
"""Methods without an underscore that are for the other half of the project."""

VARIABLES = {
    "Client": "client",
    "Context": "ctx",
    "Run": "run",
    "Step": "step",
    "StepExt": "step.ext",
    "Listener": "listener",
    "EventSink": "sink",
    "FetchResponse": "response",
}

HEAD = """\
# Reference

Made from the docstrings by `make docs`. Everything here is imported from `steporal`.

A `Duration` is a `timedelta`, an `int` of milliseconds, or text such as `"90s"`, `"1h30m"`, `"7d"`, `"250ms"`.
`RetryPolicy` is `temporalio.common.RetryPolicy`; leave its `maximum_attempts` alone, as `max_attempts` says it.
"""

_LINE_LENGTH = 100
_SECTION = re.compile(r"(Args|Attributes|Example|Raises|Returns|Yields):")
_ITEM = re.compile(r"([*\w]+): (.*)")
_ROLE = re.compile(r":\w+:`~?(?:steporal\.)?([^`]+)`")


def main() -> int:
    """Write or check the page."""
    text = page()
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print("docs/reference.md is not what the docstrings say; run: make docs", file=sys.stderr)
    return 1


def page() -> str:
    """The whole page.

    Raises:
        LookupError: It has no place for a public name.
    """
    shown = IN_PASSING.union(errors.__all__, *SECTIONS.values())
    if missing := set(steporal.__all__) - shown:
        raise LookupError(f"public names without a place in the reference: {', '.join(sorted(missing))}")
    blocks = [HEAD.rstrip()]
    for title, names in SECTIONS.items():
        blocks.append(f"## {title}")
        for name in names:
            blocks += entry(name, getattr(steporal, name))
    blocks += ["## Errors", f"```text\n{family_tree()}\n```"]
    for name in errors.__all__:
        blocks += entry(name, getattr(errors, name))
    return "\n\n".join(blocks) + "\n"


def family_tree() -> str:
    """The drawing at the top of errors.py."""
    drawing = inspect.cleandoc(errors.__doc__ or "").split("::\n\n", 1)[1].split("\n\n", 1)[0]
    return inspect.cleandoc(drawing.replace("``", ""))


def entry(name: str, thing: Any) -> Iterable[str]:
    """One name of the API, and below it what it has."""
    yield f"### {name}"
    if inspect.isfunction(thing) or thing is steporal.Client:
        yield code(signature(name, thing))
    yield from prose(thing)
    if not inspect.isclass(thing) or issubclass(thing, Exception):
        return
    documented = f"{thing.__doc__}"
    for attribute, value in vars(thing).items():
        if f" {attribute}: " not in documented and is_public(f"{name}.{attribute}", value):
            yield from member(name, attribute, value)
    for title, inner in INSIDE.get(name, {}).items():
        yield f"#### {title}"
        yield from prose(inner)


def is_public(qualified: str, value: Any) -> bool:
    """Whether an attribute of a class has a place in the page: a method or property that a user calls."""
    name = qualified.rpartition(".")[2]
    kind = inspect.isfunction(value) or isinstance(value, property)
    return kind and not name.startswith("_") and qualified not in INTERNAL and bool(inspect.getdoc(value))


def member(owner: str, name: str, value: Any) -> Iterable[str]:
    """A method or property."""
    title = f"{VARIABLES.get(owner, owner.lower())}.{name}"
    yield f"#### {title}"
    if not isinstance(value, property):
        awaited = inspect.iscoroutinefunction(value) or owner in ("Step", "StepExt")
        yield code(("await " if awaited else "") + signature(title, value))
    yield from prose(value)


def code(text: str) -> str:
    """A block of Python."""
    return f"```python\n{text}\n```"


def signature(name: str, thing: Callable[..., Any]) -> str:
    """How it is called and what it returns, with one parameter a line where it is long."""
    called = inspect.signature(thing)
    parameters = [p for p in called.parameters.values() if p.name != "self"]
    shown = [_readable(str(p)) for p in parameters]
    first = next((i for i, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY), None)
    if first is not None and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        shown.insert(first, "*")
    overloads = get_overloads(thing)  # the last one is the general one, and says more than `Any`
    returned = (inspect.signature(overloads[-1]) if overloads else called).return_annotation
    arrow = "" if returned is inspect.Signature.empty or inspect.isclass(thing) else f" -> {_readable(str(returned))}"
    line = f"{name}({', '.join(shown)}){arrow}"
    return (
        line if len(line) <= _LINE_LENGTH else f"{name}(\n" + "".join(f"    {part},\n" for part in shown) + f"){arrow}"
    )


def _readable(annotated: str) -> str:
    annotated = re.sub(r": '(.*?)'( =|$)", r": \1\2", annotated)
    annotated = re.sub(r"^Coroutine\[None, None, (.*)\]$", r"\1", annotated)  # what awaiting it gives
    return annotated.replace("Unpack[Ts]", "*Ts")


def prose(thing: Any) -> Iterable[str]:
    """A docstring as blocks of Markdown: its text, then its sections."""
    text = _ROLE.sub(r"`\1`", (inspect.getdoc(thing) or "").replace("``", "`"))
    title, lines = "", list[str]()
    for line in [*text.splitlines(), "End:"]:
        if _SECTION.fullmatch(line) or line == "End:":
            body = inspect.cleandoc("\n".join(["", *lines]))
            if title:
                yield f"**{title}**"
            if body:
                yield section(title, body)
            title, lines = line.rstrip(":"), []
        else:
            lines.append(line)


def section(title: str, body: str) -> str:
    """What stands in a section of a docstring: an example, a list of names, or text."""
    if body.startswith("::\n"):
        return code(inspect.cleandoc(body.removeprefix("::")))
    if title not in ("Args", "Attributes", "Raises"):
        return body
    lines = []
    for line in body.splitlines():
        item = _ITEM.fullmatch(line)
        lines.append(f"- `{item[1]}`: {item[2]}" if item else f"  {line.strip()}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
