"""Type aliases shared by the whole package."""

from __future__ import annotations

from typing import Any, TypeAlias

JSON: TypeAlias = Any
"""What ``json.loads`` returns: None, bool, int, float, str, list, or dict with str keys."""
