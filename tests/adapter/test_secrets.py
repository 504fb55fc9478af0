"""Secrets in values: refused where Temporal would store them in the clear, sent where payloads are encrypted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import temporalio.client
from apps import data_kinds as kinds
from encrypting import stored, with_keys
from pydantic import BaseModel, SecretBytes, SecretStr
from recording import Workers
from temporalio.api.common.v1 import Payload
from temporalio.converter import DataConverter, PayloadCodec

import steporal
from steporal import CaptureError, Context, RunFailedError, Step, StepError
from steporal.encryption import EncryptionCodec, Keys, new_key
from steporal.values.encrypted import encrypts
from steporal_workers.devserver import dev_server

pytestmark = pytest.mark.outside_runs

KEY = new_key()


class Login(BaseModel):
    user: str
    token: SecretStr


@pytest.fixture(scope="module")
async def plain() -> AsyncIterator[temporalio.client.Client]:
    """A client without keys, of a server of its own: the catalog, too, is encrypted."""
    async with dev_server(ui=False) as server:
        yield server.client


@pytest.fixture
def encrypted(plain: temporalio.client.Client) -> temporalio.client.Client:
    """A client of the same server that encrypts."""
    return with_keys(plain, KEY)


def define(app: steporal.Client) -> steporal.Workflow[Login, Any]:
    @app.workflow(id="login", input_schema=Login, max_attempts=1)
    async def login(ctx: Context[Login], step: Step) -> Any:
        token, made = ctx.input.data.token, SecretBytes(b"hunter2 too")
        captured = await step.run("captured", lambda: [token.get_secret_value(), made.get_secret_value().decode()])
        returned = await step.run("returned", lambda: Login(user="b", token=SecretStr("hunter2 again")))
        of_context = await step.run("of a context", lambda: ctx.input.data.token.get_secret_value() == "hunter2")
        invoked = await step.invoke_workflow("invoked", workflow=echo, data={"of": returned})
        return [captured == ["hunter2", "hunter2 too"], of_context, returned, invoked["of"], token]

    @app.workflow(id="echo")
    async def echo(ctx: Context[Any], step: Step) -> Any:
        return ctx.input.data

    return login


class TestWithKeys:
    @pytest.fixture
    def temporal(self, encrypted: temporalio.client.Client) -> temporalio.client.Client:
        return encrypted

    async def test_secrets_go_through_runs_and_steps_where_payloads_are_encrypted(
        self, app: steporal.Client, workers: Workers, plain: temporalio.client.Client
    ) -> None:
        login = define(app)
        async with workers(app):
            given = Login(user="a", token=SecretStr("hunter2"))
            result = await (await login.start(given)).result()
            assert await (await login.start({"user": "a", "token": "hunter2"})).result() == result
        made = Login(user="b", token=SecretStr("hunter2 again"))
        assert kinds.difference(result, [True, True, made, made, SecretStr("hunter2")]) is None
        assert b"hunter2" not in await stored(plain)


async def test_a_captured_secret_fails_its_step_at_once(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="captures")
    async def captures(ctx: Context[Any], step: Step) -> str:
        login = Login(user="a", token=SecretStr("hunter2"))
        try:
            await step.run("use", lambda: login.token.get_secret_value())
        except CaptureError as err:
            return str(err)
        return ""

    async with workers(app):
        message = await (await captures.start()).result()
    assert "step 'use' captured 'login'" in message
    assert "SecretStr at token cannot be sent" in message
    assert "encrypt payloads (docs/security.md)" in message


async def test_a_returned_secret_fails_its_step_and_its_run(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="returns")
    async def returns(ctx: Context[Any], step: Step) -> Any:
        def annotated() -> SecretStr:
            return SecretStr("hunter2")

        with pytest.raises(StepError) as failed:
            await step.run("make", annotated)
        assert failed.value.name == "UnencryptedSecretError"
        return {"token": SecretStr("hunter2")}

    async with workers(app):
        with pytest.raises(RunFailedError, match=r"SecretStr at token cannot be sent") as failed:
            await (await returns.start()).result()
    assert failed.value.name == "UnencryptedSecretError"


class OwnCodec(PayloadCodec):
    """A codec of the user's own."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)


class OwnEncryption(OwnCodec):
    encrypts = True


@pytest.mark.parametrize(
    ("codec", "expected"),
    [
        (None, False),
        (OwnCodec(), False),
        (OwnEncryption(), True),
        (EncryptionCodec(Keys.of([KEY])), True),
        (EncryptionCodec(Keys.of([], [KEY])), False),
    ],
    ids=["no codec", "own codec", "own encryption", "keys", "keys for decryption alone"],
)
def test_payloads_are_encrypted_where_the_codec_says_so(codec: PayloadCodec | None, expected: bool) -> None:
    assert encrypts(DataConverter(payload_codec=codec)) is expected
