"""An error that a module with a workflow defines, and a helper raises."""

from __future__ import annotations

from typing import Any

import steporal
from steporal import Context, Step

client = steporal.Client("ordinary errors")


class OutOfStock(Exception):
    """Too many were asked for."""


@client.workflow(id="unused")
async def unused(ctx: Context[Any], step: Step) -> None:
    """Makes this module one that defines a workflow."""
