"""How a request can fail, beside Python's own ``ConnectionError`` and ``TimeoutError``.

A user meets them by name: ``StepError.name``, ``RunFailedError.name``. No message has anything of a request but its
method and its URL without the query, as the rest may be secret.
"""

from __future__ import annotations

from ..errors import NonRetryableError, RetryAfterError, SteporalError


class HttpStatusError(RetryAfterError):
    """An answer that another attempt may change; zero as its time means the usual backoff."""


class HostBusyError(RetryAfterError):
    """This worker has as many requests to a host in flight as it may."""


class SinkNotFoundError(SteporalError):
    """This worker's code has no such sink; another's may."""


class DeliveryRefusedError(NonRetryableError):
    """A receiver's answer that no other attempt would change."""


class PrivateAddressError(NonRetryableError):
    """A name that leads to an address of a private network."""


class ResponseTooLargeError(NonRetryableError):
    """A body over ``max_response_bytes``."""


class ResponseEncodingError(NonRetryableError):
    """A body that is packed otherwise than by one of ``gzip`` and ``deflate``."""


class SecretNotFoundError(NonRetryableError):
    """An environment variable that this worker does not have, or whose value cannot be sent."""
