"""An app that defines a sink at module level."""

from __future__ import annotations

from typing import Any

import steporal
from steporal import Context, Step

client = steporal.Client("notify")

sink = client.event_sink("notify.*", "https://example.com/hooks", id="notify-example", if_exp="event.data.n > 0")


@client.workflow(id="count-sinks")
async def count_sinks(ctx: Context[Any], step: Step) -> list[str]:
    """Return the sinks that a body sees."""
    return list(client.sinks)
