"""HTTP requests that runs make: requests, responses, and secrets by name."""

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
    """A value that the worker reads from its environment, so that it never appears in Temporal's history.

    Attributes:
        name: The environment variable.
        prefix: Text before the value, such as ``"Bearer "``.
    """

    name: str
    prefix: str = ""


def secret(name: str, *, prefix: str = "") -> Secret:
    """Return a secret for ``step.ext.fetch`` or ``client.event_sink``, named by an environment variable of the worker.

    Example:
        ``headers={"Authorization": secret("STRIPE_KEY", prefix="Bearer ")}``

    Raises:
        InvalidArgumentError: The name cannot be that of an environment variable, or the prefix is not printable ASCII.
    """
    if not isinstance(name, str) or not name.strip() or "=" in name or not name.isprintable():
        raise InvalidArgumentError(f"secret({name!r}): it takes the name of an environment variable, not its value")
    if not isinstance(prefix, str) or not prefix.isascii() or not prefix.isprintable():
        raise InvalidArgumentError(f"prefix of secret({name!r}) is {prefix!r}; it takes printable ASCII")
    return Secret(name, prefix)


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Arguments of ``step.ext.fetch``."""

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
    """Response to a request.

    Attributes:
        status: The status code.
        headers: The headers, by lower-case name; repeated ones are joined by ``", "``.
        body: The body as text; bytes that cannot be decoded are replaced.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    status: int
    headers: dict[str, str]
    body: str

    @property
    def ok(self) -> bool:
        """True if the status is 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:  # type: ignore[override]
        """Return the body, parsed as JSON.

        Raises:
            ValueError: The body is not valid JSON.
        """
        return jsonlib.loads(self.body)
