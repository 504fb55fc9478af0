"""HTTP requests that runs make: what is asked for, what comes back, and secrets by name."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from .durations import Duration
from .errors import InvalidArgumentError


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that the worker takes from its environment, so that it is never in Temporal's history.

    Attributes:
        name: The environment variable.
        prefix: What stands before it, such as ``"Bearer "``.
    """

    name: str
    prefix: str = ""


def secret(name: str, *, prefix: str = "") -> Secret:
    """A secret for ``step.ext.fetch`` or ``client.event_sink``, by the name of an environment variable of the worker.

    Example:
        ``headers={"Authorization": secret("STRIPE_KEY", prefix="Bearer ")}``

    Raises:
        InvalidArgumentError: There can be no such environment variable.
    """
    if not isinstance(name, str) or not name.strip() or "=" in name or not name.isprintable():
        raise InvalidArgumentError(f"secret({name!r}): it takes the name of an environment variable, not its value")
    if not isinstance(prefix, str) or not prefix.isascii() or not prefix.isprintable():
        raise InvalidArgumentError(f"prefix of secret({name!r}) is {prefix!r}; it takes printable ASCII")
    return Secret(name, prefix)


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """What ``step.ext.fetch`` was given."""

    method: str
    url: str
    headers: Mapping[str, str | Secret]
    params: Mapping[str, str | int | float | bool | Secret]
    json: Any
    content: bytes | str | None
    timeout: Duration
    max_attempts: int | None
    max_response_bytes: int


class FetchResponse(BaseModel):
    """What came back.

    Attributes:
        status: The status code.
        headers: The headers, by lower-case name; repeated ones are joined by ``", "``.
        body: The body as text; bytes that are not text are replaced.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    status: int
    headers: dict[str, str]
    body: str

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:  # type: ignore[override]
        """The body, parsed as JSON.

        Raises:
            ValueError: The body is not valid JSON.
        """
        return jsonlib.loads(self.body)
