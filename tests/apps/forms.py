"""Every form of a function that may be a step, in a module that the sandbox loads again."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import steporal
from steporal import Context, Step

client = steporal.Client("forms")


def product(a: int, b: int = 2) -> int:
    return a * b


async def product_soon(a: int, b: int = 2) -> int:
    await asyncio.sleep(0)
    return a * b


class Shelf:
    @staticmethod
    def of(number: int) -> str:
        return f"shelf {number}"

    @classmethod
    def named(cls, name: str) -> str:
        return f"{cls.__name__} {name}"


def cleaned(text: str) -> Any:
    """A function that makes a step function of its own."""
    return lambda: text.strip().lower()


@client.workflow(id="all-forms")
async def all_forms(ctx: Context[Any], step: Step) -> dict[str, Any]:
    factor = 3

    def nested() -> int:
        return factor + 1

    async def nested_async() -> int:
        await asyncio.sleep(0)
        return factor + 2

    def with_default(by: int = factor, *, and_by: int = factor + 1) -> int:
        return by * and_by

    def outer() -> int:
        def inner() -> int:
            return factor * 100

        return inner()

    return {
        "lambda": await step.run("lambda", lambda: factor),
        "lambda_of_coroutine": await step.run("lambda of coroutine", lambda: product_soon(factor)),
        "nested": await step.run("nested", nested),
        "nested_async": await step.run("nested async", nested_async),
        "with_default": await step.run("with default", with_default),
        "inner": await step.run("inner", outer),
        "module": await step.run("module", product, 4, 5),
        "module_async": await step.run("module async", product_soon, 4, 6),
        "partial": await step.run("partial", functools.partial(product, 4, b=7)),
        "partial_of_nested": await step.run("partial of nested", functools.partial(with_default, 1), output_type=int),
        "static_method": await step.run("static method", Shelf.of, 9),
        "class_method": await step.run("class method", Shelf.named, "top"),
        "made_elsewhere": await step.run("made elsewhere", cleaned("  Loud ")),
        "loop": [await step.run("loop", lambda: i * factor) for i in range(3)],
        "gathered": await asyncio.gather(*[step.run("gathered", lambda: i) for i in range(3)]),
    }


@client.workflow(id="defaults")
async def defaults(ctx: Context[Any], step: Step) -> list[int]:
    later = [lambda i=i: i * 10 for i in range(3)]
    return [await step.run("later", function) for function in later]


@client.workflow(id="recursion")
async def recursion(ctx: Context[Any], step: Step) -> int:
    def factorial(n: int) -> int:
        return 1 if n == 0 else n * factorial(n - 1)

    return await step.run("factorial", factorial, 6)
