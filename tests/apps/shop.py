"""Functions that tests replace, and methods whose name is not the one that they are found by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel

import steporal
from steporal import Context, Step

from .payments import refund

client = steporal.Client("shop", max_attempts=1)


def charge(amount: int) -> str:
    return f"charged {amount}"


class Card:
    @staticmethod
    def debit(amount: int) -> str:
        return f"debited {amount}"


@client.workflow(id="pay")
async def pay(ctx: Context[int], step: Step) -> list[str]:
    amount = ctx.input.data
    return [
        await step.run("charge", charge, amount),
        await step.run("debit", Card.debit, amount),
        await step.run("refund", refund, amount),
        await step.run("all", lambda: f"{charge(amount)}, {Card.debit(amount)}, {refund(amount)}"),
    ]


def timed(method: Callable[..., Any]) -> Callable[..., Any]:
    def inner(*args: Any) -> Any:
        return method(*args)

    return inner


class Repository:
    table: ClassVar[str] = "any"

    @classmethod
    def load(cls, id: int) -> str:
        return f"{cls.table}/{id}"


class Orders(Repository):
    table = "orders"


class Cart(BaseModel):
    count: int

    @classmethod
    def of(cls, count: int) -> Any:
        return cls(count=count)

    @timed
    def decorated(self, factor: int) -> int:
        return self.count * factor

    def __private(self, factor: int) -> int:
        return self.count * factor

    def private(self) -> Callable[[int], int]:
        return self.__private

    by_lambda = lambda self, factor: self.count * factor  # noqa: E731

    def total(self, factor: int) -> int:
        return self.count * factor


class Discounted(Cart):
    def total(self, factor: int) -> int:
        return 0

    def full(self) -> Callable[[int], int]:
        return super().total


@client.workflow(id="methods")
async def methods(ctx: Context[Any], step: Step) -> dict[str, Any]:
    cart, load = Cart(count=3), Orders.load
    return {
        "inherited": await step.run("inherited", Orders.load, 1),
        "captured": await step.run("captured", lambda: load(1)),
        "of an instance": await step.run("of an instance", Orders().load, 1),
        "makes": type(await step.run("makes", Discounted.of, 3)).__name__,
        "decorated": await step.run("decorated", cart.decorated, 5),
        "private": await step.run("private", cart.private(), 5),
        "by a lambda": await step.run("by a lambda", cart.by_lambda, 5),
        "of the base": await step.run("of the base", Discounted(count=3).full(), 5),
    }
