"""Errors of requests, besides Python's own ``ConnectionError`` and ``TimeoutError``.

Users meet them by name: ``StepError.name``, ``RunFailedError.name``. Messages contain only the method of a request and
its URL without the query, because the rest may be secret.
"""

from __future__ import annotations

from ..errors import NonRetryableError, RetryAfterError, SteporalError


class HttpStatusError(RetryAfterError):
    """A response that another attempt may change; a delay of zero means the usual backoff."""


class HostBusyError(RetryAfterError):
    """This worker has reached its limit of concurrent requests to a host."""


class SinkNotFoundError(SteporalError):
    """This worker's code does not contain the sink; another worker's may."""


class DeliveryRefusedError(NonRetryableError):
    """A receiver's response that no other attempt would change."""


class PrivateAddressError(NonRetryableError):
    """A name that leads to an address of a private network."""


class ResponseTooLargeError(NonRetryableError):
    """A body that exceeds ``max_response_bytes``."""


class ResponseEncodingError(NonRetryableError):
    """A body with a coding other than ``gzip`` and ``deflate``."""


class SecretNotFoundError(NonRetryableError):
    """An environment variable that this worker does not have, or whose value cannot be sent."""
