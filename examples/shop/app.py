"""A shop: an order passes through two workflows, a new user through three.

Run it: ``steporal dev examples.shop.app:client``, and then, in another terminal,
``steporal send order.placed --data '{"order_id": "A-1001", "email": "ada@example.com", "items": {"teapot": 2}}'``.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from pydantic import BaseModel

import steporal
from steporal import Context, NonRetryableError, RetryPolicy, Step, event_trigger

client = steporal.Client("shop")


# --- orders --------------------------------------------------------------------------------------------------------

PRICES = {"teapot": 24.5, "cup": 6.0}


class Order(BaseModel):
    """An order of a customer."""

    order_id: str
    email: str
    items: dict[str, int]


class Payment(BaseModel):
    """A charge that the card network has accepted."""

    reference: str
    amount: float


class Shipment(BaseModel):
    """A shipment that the warehouse must send."""

    order_id: str
    items: dict[str, int]


class CardNetworkError(Exception):
    """The card network did not answer."""


def price(items: dict[str, int]) -> float:
    """Return the price of an order."""
    unknown = sorted(items.keys() - PRICES.keys())
    if unknown:
        raise NonRetryableError(f"not in the shop: {', '.join(unknown)}")
    return sum(PRICES[item] * count for item, count in items.items())


@client.workflow(id="process-order", input_schema=Order, triggers=[event_trigger("order.placed")])
async def process_order(ctx: Context[Order], step: Step) -> Payment:
    """Price, charge, and hand over to the warehouse."""
    order = ctx.input.data
    amount = await step.run("price", price, order.items)

    async def charge() -> Payment:
        await asyncio.sleep(0.1)
        if ctx.attempt < 2:  # simulates a network that is down for a moment
            raise CardNetworkError("the card network does not answer")
        return Payment(reference=f"pay-{order.order_id}", amount=amount)

    payment = await step.run("charge-card", charge, retry=RetryPolicy(initial_interval=timedelta(milliseconds=300)))
    await step.ext.send_event(
        "notify-warehouse",
        {"name": "order.paid", "data": Shipment(order_id=order.order_id, items=order.items).model_dump()},
    )
    return payment


@client.workflow(id="ship-order", input_schema=Shipment, triggers=[event_trigger("order.paid")])
async def ship_order(ctx: Context[Shipment], step: Step) -> list[str]:
    """Pick all items concurrently, then pack them."""

    async def pick(item: str, count: int) -> str:
        await asyncio.sleep(0.2)
        return f"{count} × {item}"

    picked = await asyncio.gather(
        *(step.run(f"pick-{item}", pick, item, count) for item, count in ctx.input.data.items.items())
    )
    await step.run("pack", lambda: f"parcel {ctx.input.data.order_id}: {', '.join(picked)}")
    return picked


# --- users ---------------------------------------------------------------------------------------------------------


class SignUp(BaseModel):
    """The form of a new user."""

    email: str
    name: str


class User(BaseModel):
    """A user of the shop."""

    user_id: str
    email: str
    name: str


@client.workflow(id="user-signup", input_schema=SignUp)
async def user_signup(ctx: Context[SignUp], step: Step) -> User:
    """Create the user, and announce it: each event starts the workflows that have a trigger for it."""
    form = ctx.input.data
    user = await step.run("create-user", lambda: User(user_id=f"u-{ctx.uuid4()}", email=form.email, name=form.name))
    await step.ext.send_event(
        "announce",
        [
            {"name": "user.created", "data": user.model_dump()},
            {"name": "onboarding.start", "data": user.model_dump()},
        ],
    )
    return user


@client.workflow(id="welcome-user", input_schema=User, triggers=[event_trigger("user.created")])
async def welcome_user(ctx: Context[User], step: Step) -> str:
    """Send one mail immediately."""
    user = ctx.input.data
    return await step.run("send-welcome", lambda: f"welcome mail to {user.email}")


@client.workflow(id="onboard-user", input_schema=User, triggers=[event_trigger("onboarding.start")])
async def onboard_user(ctx: Context[User], step: Step) -> list[str]:
    """Send two mails with a sleep between them, which uses no worker, however long it is."""
    user = ctx.input.data
    first = await step.run("send-first-steps", lambda: f"first steps to {user.email}")
    await step.sleep("give-it-time", "2s")
    second = await step.run("send-tips", lambda: f"tips to {user.email}")
    return [first, second]
