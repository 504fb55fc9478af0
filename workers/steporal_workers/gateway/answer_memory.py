"""Memory for responses: the results of runs, many of which a single request may ask for.

It is part of the memory for the bodies of requests, and of the sender's share; a response holds it until it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from temporalio.common import RawValue

from steporal.wire.names import EXACT_METADATA

from .answers import Problem
from .bodies import weight_of_answer
from .memory import Body

COMING_BYTES = 2 * 1024 * 1024
"""Memory held for a result while it arrives and its size is unknown: the size limit of a value in Temporal."""

AT_ONCE = 4
"""Limit of results that one request receives concurrently."""

_OF_A_CHARACTER = 16
"""Bytes per character: four for the text, and twice its six characters of ASCII."""


class AnswerMemory:
    """Memory of the response to one request.

    Args:
        body: The memory of the request.
    """

    def __init__(self, body: Body) -> None:
        self._body = body
        self._slots = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def of_result(self) -> AsyncIterator[Callable[[RawValue], None]]:
        """Wait for the turn of a result; the yielded function takes the memory for it, before it is decoded.

        Raises:
            Problem: 503: that much is not available now. 413: it exceeds the limit.
        """
        async with self._slots:
            self._take(COMING_BYTES)
            try:
                yield self._arrived
            finally:
                self._body.give_back(COMING_BYTES)

    def take_text(self, *texts: str) -> None:
        """Take the memory for texts.

        Raises:
            Problem: See :meth:`of_result`.
        """
        self._take(sum(map(len, texts)) * _OF_A_CHARACTER)

    def _arrived(self, raw: RawValue) -> None:
        raw.payload.metadata.pop(EXACT_METADATA, None)  # not part of the response; its presence would unpack it
        self._take(weight_of_answer(raw.payload.data))

    def _take(self, size: int) -> None:
        try:
            self._body.take(size)
        except Problem as problem:
            if problem.status != 413:
                raise
            what = "the results of the runs take too much memory for one response; get each with /v1/runs/{id}, or "
            raise Problem(413, f"{what}with `steporal runs show`") from None
