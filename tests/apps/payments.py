"""A function that another module of the app imports."""

from __future__ import annotations


def refund(amount: int) -> str:
    return f"refunded {amount}"
