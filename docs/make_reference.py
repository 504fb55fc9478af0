"""Writes docs/reference.md from the docstrings of the public API; ``--check`` only says whether it is up to date."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import steporal
from steporal import errors

TARGET = Path(__file__).with_name("reference.md")

SECTIONS: dict[str, list[str]] = {
    "Define": ["Client", "Workflow", "event_trigger", "cron_trigger", "reference"],
    "In a handler": ["Context", "Input", "Step", "StepExt"],
    "Events": ["SentEvent", "ReceivedEvent", "SendEventResult"],
    "Runs": ["Run"],
    "Durations": ["Duration"],
}

_SECTION = re.compile(r"^(Args|Returns|Raises|Attributes|Example|Yields):$", re.MULTILINE)
_ROLE = re.compile(r":\w+:`~?(?:steporal\.)?([^`]+)`")


def main() -> int:
    """Write or check the page."""
    text = page()
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print("docs/reference.md is not what the docstrings say; run: make docs")
    return 1


def page() -> str:
    """The whole page."""
    parts = [
        "# Reference\n",
        "Made from the docstrings by `make docs`. Everything here is imported from `steporal`.\n",
    ]
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n")
        parts += [entry(name, getattr(steporal, name)) for name in names]
    parts += ["## Errors\n", f"```text\n{family_tree(errors)}\n```\n"]
    for name in errors.__all__:
        parts.append(entry(name, getattr(errors, name)))
    return "\n".join(parts)


def family_tree(module: ModuleType) -> str:
    """The drawing at the top of errors.py."""
    return inspect.cleandoc((module.__doc__ or "").split("::\n", 1)[1].split("\n\nAll of them")[0])


def entry(name: str, thing: Any) -> str:
    """One name of the API, and below it its methods."""
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        kinds = " | ".join(kind.__name__ for kind in thing.__args__)
        return f'### {name}\n\n`{kinds}`: a `timedelta`, an `int` of milliseconds, or text such as `"1h30m"`.\n'
    text = f"### {name}\n\n{heading(name, thing)}{prose(thing)}\n"
    if inspect.isclass(thing) and not issubclass(thing, BaseException):
        members = [member for member in vars(thing).items() if is_public(*member)]
        text += "\n" + "\n".join(method(name, member, value) for member, value in members)
    return text


def heading(name: str, thing: Any) -> str:
    """The signature, where one is called."""
    if inspect.isfunction(thing) or thing in (steporal.Client,):
        return f"```python\n{signature(name, thing)}\n```\n\n"
    return ""


def is_public(name: str, value: Any) -> bool:
    """Whether a class's attribute belongs into the reference."""
    return not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))


def method(owner: str, name: str, value: Any) -> str:
    """A method or property."""
    variable = {"Step": "step", "StepExt": "step.ext", "Client": "client", "Context": "ctx"}.get(owner, owner.lower())
    if isinstance(value, property):
        return f"#### {variable}.{name}\n\n{prose(value)}\n"
    prefix = "await " if inspect.iscoroutinefunction(value) or owner in ("Step", "StepExt") else ""
    call = f"{prefix}{signature(f'{variable}.{name}', value)}"
    return f"#### {variable}.{name}\n\n```python\n{call}\n```\n\n{prose(value)}\n"


def signature(name: str, thing: Any) -> str:
    """A call of it, one parameter a line where it is long."""
    parameters = [p for p in inspect.signature(thing).parameters.values() if p.name != "self"]
    shown = [re.sub(r": '(.*)'", r": \1", str(p)) for p in parameters]
    first = next((i for i, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY), None)
    if first is not None and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        shown.insert(first, "*")
    line = f"{name}({', '.join(shown)})"
    return line if len(line) <= 100 else f"{name}(\n" + "".join(f"    {part},\n" for part in shown) + ")"


def prose(thing: Any) -> str:
    """A docstring as Markdown."""
    if dataclasses.is_dataclass(thing) and (thing.__doc__ or "").startswith(f"{getattr(thing, '__name__', '')}("):
        return ""
    text = re.sub(r"::\n\n", "::\n", inspect.getdoc(thing) or "")
    text = _ROLE.sub(r"`\1`", text.replace("``", "`"))
    lines: list[str] = []
    inside = code = False
    for line in text.splitlines():
        if _SECTION.match(line):
            if code:
                lines.append("```")
            inside, code = True, False
            lines += ["", f"**{line[:-1]}**", ""]
        elif line.strip() == "::":
            code = True
            lines.append("```python")
        elif code and line and not line.startswith("    "):
            code = False
            lines += ["```", line]
        elif code:
            lines.append(line.removeprefix("        "))
        elif inside and re.match(r"    [*\w]+: ", line):
            item, _, rest = line.strip().partition(": ")
            lines.append(f"- `{item}`: {rest}")
        elif inside and line.startswith("        "):
            lines.append(f"  {line.strip()}")
        else:
            lines.append(line.strip() if inside else line)
    if code:
        lines.append("```")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
