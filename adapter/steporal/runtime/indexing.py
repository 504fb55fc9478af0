"""Search attributes that a run gives itself, as a run of a schedule does.

Temporal fails the workflow task of a run that upserts an attribute which the namespace does not have, and tries it for
ever. Anybody may start a run that is to do so, and an operator may remove the attributes after the schedule was made.
So the run asks first. If the attributes are removed between the answer and the end of the workflow task, Temporal
records neither, and the next attempt of the task asks again.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy, TypedSearchAttributes
from temporalio.exceptions import FailureError

from ..values.converter import from_raw, to_raw
from ..wire.failures import is_cancellation
from ..wire.names import HAS_ATTRIBUTES


async def index(attributes: TypedSearchAttributes) -> None:
    """Give the current run search attributes, if its namespace has them.

    Raises:
        CancelledError: The run was cancelled meanwhile.
    """
    try:
        answer = await workflow.execute_local_activity(
            HAS_ATTRIBUTES,
            to_raw({}),
            result_type=RawValue,
            start_to_close_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(maximum_attempts=3),
            summary="whether the namespace has Steporal's search attributes",
        )
    except FailureError as err:
        if is_cancellation(err):
            raise asyncio.CancelledError from None
        workflow.logger.warning("the run is not found by search attributes: %s", err.cause or err)
        return
    if from_raw(answer):
        workflow.upsert_search_attributes([pair.key.value_set(pair.value) for pair in attributes])
