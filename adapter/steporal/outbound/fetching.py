"""Conversion of ``step.ext.fetch``: from its arguments to the request, and from the response to the result."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import pydantic
from pydantic import BaseModel, ConfigDict

from ..durations import parse_duration
from ..errors import NonRetryableError, UnserializableError
from ..http import FetchRequest, FetchResponse, Secret
from ..types import JSON
from ..values.converter import bounded_validator, dumps, issues
from ..values.readable import outward
from .checks import check_headers, check_params, check_url
from .content import text_of
from .exchange import Answer, Request
from .secrets import revealed


class FetchCall(BaseModel):
    """Request in the form for the activity, as Temporal stores it: secrets are names."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    step: str
    method: str
    url: str
    headers: dict[str, str | Secret]
    params: dict[str, str | Secret]
    body: dict[str, JSON] | None = None
    timeout: float
    max_response_bytes: int

    @classmethod
    def of(cls, step_id: str, options: FetchRequest, limit_for: Callable[[int], int]) -> FetchCall:
        """Return the checked call of a step; its method and URL have been checked before.

        Args:
            step_id: The step's id.
            options: The options of the call.
            limit_for: Returns the size limit of a response, for the requested limit.

        Raises:
            ValueError: An option cannot be sent.
            TypeError: An option has a type that cannot be sent.
        """
        return cls(
            step=step_id,
            method=options.method.upper(),
            url=options.url,
            headers=check_headers(options.headers),
            params=check_params(options.params),
            body=_body(options.json, options.content),
            timeout=parse_duration(options.timeout, what="timeout", minimum=timedelta(milliseconds=1)).total_seconds(),
            max_response_bytes=_max_bytes(options.max_response_bytes, limit_for),
        )

    @classmethod
    def read(cls, data: JSON, limit_for: Callable[[int], int]) -> FetchCall:
        """Return a call from the argument of the activity, which anybody who may write to the namespace can send.

        Args:
            data: The call.
            limit_for: Returns the size limit of a response, for the requested limit.

        Raises:
            NonRetryableError: The data is not a valid call.
        """
        try:
            call: FetchCall = bounded_validator(cls).validate_python(data)
            check_url(call.url)
            timedelta(seconds=call.timeout)
        except pydantic.ValidationError as err:
            raise NonRetryableError(f"the request is not one of step.ext.fetch: {issues(err)}") from None
        except (ValueError, TypeError, OverflowError) as err:
            raise NonRetryableError(f"the request is not one of step.ext.fetch: {err}") from None
        largest = limit_for(call.max_response_bytes)
        return call if call.max_response_bytes <= largest else call.model_copy(update={"max_response_bytes": largest})

    def request(self) -> Request:
        """Return the request, with its secrets.

        Raises:
            SecretNotFoundError: This process does not have a secret.
        """
        headers = [(name, self._revealed(value, f"header {name!r}")) for name, value in self.headers.items()]
        params = [(name, self._revealed(value, f"parameter {name!r}")) for name, value in self.params.items()]
        content, kind = _content(self.body)
        if kind and not any(name.lower() == "content-type" for name in self.headers):
            headers.append(("content-type", kind))
        return Request(
            method=self.method,
            url=_with_params(self.url, params),
            headers=headers,
            content=content,
            timeout=timedelta(seconds=self.timeout),
            max_response_bytes=self.max_response_bytes,
            shown=self.shown,
        )

    @property
    def shown(self) -> str:
        """URL for messages, without its query."""
        return urlunsplit(urlsplit(self.url)._replace(query="", fragment=""))

    def _revealed(self, value: str | Secret, what: str) -> str:
        return revealed(value, f"{what} of step {self.step!r}")


def _body(json: Any, content: object) -> dict[str, JSON] | None:
    if json is not None and content is not None:
        raise TypeError("it has both json and content; a request has one body")
    if json is not None:
        try:
            encoded = outward(json)
        except UnserializableError as err:
            raise ValueError(f"json cannot be sent: {err}") from None
        return {"json": encoded}
    if content is None:
        return None
    if isinstance(content, str):
        try:
            content.encode()
        except UnicodeEncodeError:
            raise ValueError("content contains a lone surrogate, so it is not valid Unicode") from None
        return {"text": content}
    if isinstance(content, bytes):
        return {"base64": base64.b64encode(content).decode()}
    raise TypeError(f"content is {content!r} ({type(content).__name__}); it takes bytes or text")


def _content(body: Mapping[str, JSON] | None) -> tuple[bytes | None, str | None]:
    if body is None:
        return None, None
    if "json" in body:
        return dumps(body["json"]), "application/json"
    if "text" in body:
        return body["text"].encode(), "text/plain; charset=utf-8"
    return base64.b64decode(body["base64"]), "application/octet-stream"


def _max_bytes(value: object, limit_for: Callable[[int], int]) -> int:
    count = value if isinstance(value, int) and not isinstance(value, bool) else 0
    limit = limit_for(count)
    if not 0 < count <= limit:
        raise ValueError(f"max_response_bytes is {value!r}; it takes 1 to {limit:,}, the limit of what Temporal stores")
    return count


def _with_params(url: str, params: list[tuple[str, str]]) -> str:
    parts = urlsplit(url)
    query = "&".join(filter(None, [parts.query, urlencode(params, quote_via=quote)]))
    return urlunsplit(parts._replace(query=query, fragment=""))


def response_of(answer: Answer) -> FetchResponse:
    """Return a response in the form that the step returns."""
    text = text_of(answer.body, answer.headers.get("content-type", ""))
    return FetchResponse(status=answer.status, headers=answer.headers, body=text)
