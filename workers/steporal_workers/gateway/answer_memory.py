"""Memory for answers: what runs returned, of which one request may ask for that of many.

It is a part of what there is for the bodies of requests, and of the sender's share; an answer has it until it is sent.
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
"""What is taken for a result while it comes, and its size is not known: the most that Temporal stores of a value."""

AT_ONCE = 4
"""Results of one request that come at a time."""

_OF_A_CHARACTER = 16
"""Bytes: the text itself, and twice its six characters of ASCII."""


class AnswerMemory:
    """What the answer to one request takes.

    Args:
        body: What the request takes.
    """

    def __init__(self, body: Body) -> None:
        self._body = body
        self._slots = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def of_result(self) -> AsyncIterator[Callable[[RawValue], None]]:
        """Wait for the turn of a result; what is yielded takes the memory for it, before it is read.

        Raises:
            Problem: 503: there is not so much now. 413: it is more than there is at all.
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
        raw.payload.metadata.pop(EXACT_METADATA, None)  # or it would be unpacked, and is no part of the answer
        self._take(weight_of_answer(raw.payload.data))

    def _take(self, size: int) -> None:
        try:
            self._body.take(size)
        except Problem as problem:
            if problem.status != 413:
                raise
            what = "what the runs returned takes too much memory to be answered at once; get each by /v1/runs/{id}, or "
            raise Problem(413, f"{what}by `steporal runs show`") from None
