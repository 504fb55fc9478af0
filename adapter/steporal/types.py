"""Type aliases shared by the whole package."""

from __future__ import annotations

from typing import Any, TypeAlias

JSON: TypeAlias = Any
"""JSON value, as ``json.loads`` returns it: None, bool, int, float, str, list, or dict with str keys."""
