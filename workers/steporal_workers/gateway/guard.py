"""Who has the key of an endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from .answers import Problem
from .keys import Ring

Endpoint = Callable[[Request], Awaitable[Response]]


def guarded(endpoint: Endpoint, keys: Ring, *, what: str, variable: str) -> Endpoint:
    """An endpoint for those who have a key.

    Args:
        endpoint: What answers them.
        keys: The keys.
        what: What they are called.
        variable: Where they are set.
    """

    async def checked(request: Request) -> Response:
        if not keys.is_open:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not keys.accepts(key.strip()):
                why = f"{what} key not found; send a header: Authorization: Bearer KEY"
                if keys.is_closed:
                    why = f"no {what} keys are configured: set {variable}"
                raise Problem(401, why, headers={"WWW-Authenticate": "Bearer"})
        return await endpoint(request)

    return checked
