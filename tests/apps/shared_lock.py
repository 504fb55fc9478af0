"""A lock at module level that no module of workflows defines, so that all runs of a worker share it."""

from __future__ import annotations

import asyncio

lock = asyncio.Lock()
