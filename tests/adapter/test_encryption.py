"""Encryption: what Temporal has of values, which keys are needed, and what waits where one is not there."""

from __future__ import annotations

import asyncio
import base64
import os
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import temporalio.client
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from encrypting import stored, with_keys
from gateway import gateway_of
from http_server import http_server
from recording import Workers
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes, PayloadCodec
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from waiting import until_waiting

import steporal
from steporal import (
    Context,
    DefinitionError,
    EncryptionError,
    NonRetryableError,
    PayloadTooLargeError,
    RunFailure,
    Step,
    StepError,
    UnknownKeyError,
    WorkflowExt,
    cron_trigger,
    encryption,
    event_trigger,
)
from steporal.encryption import EncryptionCodec, Key, Keys, new_key
from steporal.events import new_ulid
from steporal.routing.catalog.arbiter import arbiter_id
from steporal.routing.catalog.defined import list_of
from steporal.routing.catalog.reading import Catalog
from steporal.routing.catalog.shards import shard_id, shard_of_app
from steporal.runtime.steps import activity
from steporal.values.encrypted import ENCODING, key_of
from steporal.wire.limits import MAX_PAYLOAD_BYTES
from steporal.wire.names import LIST_KEY
from steporal_workers.devserver import dev_server

pytestmark = pytest.mark.outside_runs

OLD, NEW = new_key(), new_key()

MARKER = "m4rk3r"
QUICK_TASKS = ['history.defaultWorkflowTaskTimeout="2s"']


@pytest.fixture(scope="module")
async def plain() -> AsyncIterator[temporalio.client.Client]:
    """A client without keys, of a server of its own: the catalog, too, is encrypted."""
    async with dev_server(ui=False) as server:
        yield server.client


@pytest.fixture
def temporal(plain: temporalio.client.Client) -> temporalio.client.Client:
    """A client that encrypts with one key."""
    return with_keys(plain, OLD, decrypt=(NEW,))


# --- what Temporal has ---------------------------------------------------------------------------------------------


async def test_temporal_has_nothing_of_values_in_the_clear(
    app: steporal.Client, workers: Workers, plain: temporalio.client.Client
) -> None:
    signal, name, failures = f"approval/{new_ulid()}", f"paid.{new_ulid()}", []

    async def failed(ctx: Context[RunFailure], step: Step) -> None:
        failures.append(ctx.input.data.error.message)
        await step.run("tell", lambda: MARKER)

    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> Any:
        return f"{ctx.input.data} {MARKER}"

    @app.workflow(id="daily", triggers=[cron_trigger("0 9 1 1 *")])
    async def daily(ctx: Context[Any], step: Step) -> None: ...

    @app.workflow(
        id="all",
        triggers=[event_trigger(name, if_exp=f"event.data.word != 'not {MARKER}'")],
        ext=WorkflowExt(on_failure=failed),
    )
    async def everything(ctx: Context[Any], step: Step) -> Any:
        given = ctx.input.data["word"]
        assert await step.run("run", lambda: given[::-1]) == MARKER[::-1]
        assert await step.run("local", lambda: given, local=True) == MARKER
        listener = await step.ext.listen("listen", event="heard", if_exp=f"event.data.word == '{MARKER}'", timeout="1h")
        async with listener:
            await step.ext.send_event("send", {"name": "heard", "data": {"word": MARKER}})
            heard = await listener.next("next")
        assert heard and heard.data["word"] == MARKER
        received = await step.wait_for_signal("wait", signal=signal, timeout="1h")
        assert received and received.data == MARKER
        assert MARKER in await step.invoke_workflow("invoke", workflow=child, data=MARKER)
        try:
            await step.run("fail", fail, max_attempts=2)
        except StepError as err:
            assert MARKER in err.message and "in fail" in err.stack
        raise NonRetryableError(f"in the end, {MARKER}")

    def fail() -> None:
        raise ValueError(f"no {MARKER}")

    async with http_server() as server:
        app.event_sink("heard", server.url, allow_private=True)
        async with workers(app):
            sent = await app.send_event({"name": name, "data": {"word": MARKER}})
            run = await app.get_run(f"{app.id}/all/{sent.ids[0]}")
            async with asyncio.timeout(60):
                while (await app.send_signal(signal, MARKER)).run_id is None:
                    await asyncio.sleep(0.05)
            with pytest.raises(steporal.RunFailedError, match=MARKER) as raised:
                await run.result()
            assert "in everything" in raised.value.stack
            async with asyncio.timeout(60):
                while not (failures and server.asked):
                    await asyncio.sleep(0.05)
            has = await stored(plain)
    assert MARKER in failures[0] and MARKER.encode() in server.asked[0].body
    assert MARKER.encode() not in has and MARKER[::-1].encode() not in has
    assert has.count(ENCODING) > 50


# --- keys that change ----------------------------------------------------------------------------------------------


def waits_for_a_signal(app: steporal.Client) -> tuple[steporal.Workflow[Any, Any], str]:
    """Define a workflow that has done a step when it waits for a signal, and does one with both data after it."""
    signal = f"go/{new_ulid()}"

    @app.workflow(id=f"waits {app.id}")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        first = await step.run("first", lambda: ctx.input.data * 2)
        received = await step.wait_for_signal("wait", signal=signal, timeout="1h")
        return await step.run("second", lambda: [first, received and received.data])

    return waits, signal


@pytest.mark.parametrize(
    ("before", "after"),
    [((), (NEW,)), ((OLD,), (NEW,)), ((OLD,), ())],
    ids=["turned on", "another key", "turned off"],
)
async def test_keys_change_under_a_run_that_waits(
    app: steporal.Client, plain: temporalio.client.Client, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    waits, signal = waits_for_a_signal(app)
    async with Workers(with_keys(plain, *before, decrypt=(OLD, NEW)), 1000)(app):
        run = await waits.start("ab")
        await until_waiting(run)
    workers = Workers(with_keys(plain, *after, decrypt=(OLD, NEW)), 1000)
    async with workers(app):
        await app.send_signal(signal, "cd")
        assert await (await app.get_run(run.workflow_id)).result() == ["abab", "cd"]
        history = await plain.get_workflow_handle(run.workflow_id).fetch_history()
    result = history.events[-1].workflow_execution_completed_event_attributes.result.payloads[0]
    assert key_of(result) == "".join(Key.parse(key).id for key in after)
    await workers.replay()


async def test_what_an_app_has_registered_is_encrypted_with_the_key_of_today(
    app: steporal.Client, plain: temporalio.client.Client
) -> None:
    @app.workflow(id="daily", triggers=[cron_trigger("0 9 1 1 *")])
    async def daily(ctx: Context[Any], step: Step) -> None: ...

    async def keys() -> set[str]:
        (schedule,) = list_of(app.app).schedules
        action = (await plain.get_schedule_handle(schedule).describe()).raw_description.schedule.action
        payloads = list(action.start_workflow.input.payloads)
        for workflow_id, field in ((arbiter_id(app.id), LIST_KEY), (shard_id(shard_of_app(app.id)), f"app:{app.id}")):
            described = (await plain.get_workflow_handle(workflow_id).describe()).raw_description
            payloads.append(described.workflow_execution_info.memo.fields[field])
        return {key_of(payload) for payload in payloads}

    for current in ((), (OLD,), (NEW,)):
        async with Workers(with_keys(plain, *current, decrypt=(OLD, NEW)), 1000)(app):
            assert await keys() == {"".join(Key.parse(key).id for key in current)}
    assert app.id not in (await Catalog(with_keys(plain, OLD, NEW)).read_all()).apps


# --- keys that are missing -----------------------------------------------------------------------------------------


@pytest.fixture
async def other() -> AsyncIterator[temporalio.client.Client]:
    """A client without keys, of a server whose catalog is not encrypted."""
    async with dev_server(ui=False, dynamic_config=QUICK_TASKS) as server:
        yield server.client


async def failed_task(run: steporal.Run[Any]) -> str:
    """What Temporal's history says, to everybody, of the first workflow task that fails; waits for it."""
    async with asyncio.timeout(60):
        while True:
            async for event in run.temporal.fetch_history_events():
                if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
                    return event.workflow_task_failed_event_attributes.failure.message
            await asyncio.sleep(0.05)


async def test_a_run_waits_for_a_worker_that_has_its_key(
    app: steporal.Client, other: temporalio.client.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caught: list[Exception] = []

    @app.workflow(id="far")
    async def far(ctx: Context[Any], step: Step) -> Any:
        try:
            return await step.run("far", lambda: MARKER, task_queue="far")
        except Exception as err:
            caught.append(err)
            return "caught"

    workers = Workers(with_keys(other, decrypt=(NEW,)), 1000)
    async with Worker(with_keys(other, NEW), task_queue="far", plugins=[app.plugin()]):
        async with Workers(other, 1000)(app):
            run = await far.start()
            said = await failed_task(run)
            assert "failed: UnknownKeyError" not in caplog.text, "the run has not failed: it waits"
        async with workers(app):
            assert await (await app.get_run(run.workflow_id)).result() == MARKER
    id = Key.parse(NEW).id
    assert said.startswith(f"a value is encrypted with key {id!r}, which this process does not have; add the key to ")
    assert caplog.text.count("Failed handling activation") == 1
    assert not caught, "what the body does not see it cannot catch"
    await workers.replay()


async def test_a_step_whose_arguments_cannot_be_read_begins_again(
    app: steporal.Client, other: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "_CODE_PAUSE", timedelta(seconds=0.3))

    @app.workflow(id="far", max_attempts=2, triggers=[event_trigger("said")])
    async def far(ctx: Context[Any], step: Step) -> Any:
        return await step.run("far", lambda: ctx.input.data, task_queue="far")

    workers = Workers(with_keys(other, NEW), 1000)
    async with workers(app):
        run = await far.start(MARKER)
        for pauses, keys in enumerate([(), (OLD,)], 1):  # without a codec, and with one
            async with Worker(with_keys(other, *keys), task_queue="far", plugins=[app.plugin()]):
                await until_waiting(run, timers=pauses)
        async with Worker(workers.temporal, task_queue="far", plugins=[app.plugin()]):
            assert await run.result() == MARKER
        with pytest.raises(UnknownKeyError, match="STEPORAL_ENCRYPTION_KEYS"):
            await Catalog(other).read(["said"])
        with pytest.raises(UnknownKeyError):
            await Catalog(with_keys(other, OLD)).read_all()
        with pytest.raises(UnknownKeyError):
            async with Workers(other, 1000)(steporal.Client(app.id, task_queue="without keys"), is_listed=True):
                pytest.fail("a worker that cannot read what its app has registered does not serve")
        async with Workers(other, 1000)(steporal.Client("another app"), is_listed=True):
            pass  # a key that it does not have is of no concern to another app
        stranger = steporal.Client("elsewhere", temporal=with_keys(other, OLD))
        with pytest.raises(UnknownKeyError):
            await (await stranger.get_run(run.workflow_id)).result()
        async with gateway_of(stranger) as http:
            answers = [
                await http.get("/ready"),
                await http.get(f"/v1/runs/{run.workflow_id}"),
                await http.post("/e/any", json={"name": "said"}),
                await http.post("/invoke/far", json={"data": 1}),
            ]
            assert [answer.status_code for answer in answers] == [503] * 4
            assert all("STEPORAL_ENCRYPTION_KEYS" in answer.json()["error"] for answer in answers)
            assert answers[2].json()["ids"] == []
    await workers.replay()


# --- the codec -----------------------------------------------------------------------------------------------------


def payload(text: str = MARKER) -> Payload:
    return Payload(metadata={"encoding": b"json/plain", "more": b"kept"}, data=f'"{text}"'.encode())


async def test_a_payload_is_sealed_with_its_metadata_and_each_time_otherwise() -> None:
    codec = EncryptionCodec(Keys.of([OLD]))
    first, second = await codec.encode([payload(), payload()])
    assert first.data != second.data and first.data[:12] != second.data[:12]
    assert dict(first.metadata) == {"encoding": ENCODING, "encryption-key-id": Key.parse(OLD).id.encode()}
    assert MARKER.encode() not in first.SerializeToString()
    assert await codec.decode([first, second, payload("plain")]) == [payload(), payload(), payload("plain")]
    assert await EncryptionCodec(Keys.of([NEW], [OLD])).decode([first]) == [payload()]


async def test_it_is_what_temporals_samples_make() -> None:
    (sealed,) = await EncryptionCodec(Keys.of([OLD])).encode([payload()])
    opened = AESGCM(Key.parse(OLD).secret).decrypt(sealed.data[:12], sealed.data[12:], None)
    assert Payload.FromString(opened) == payload()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data[:5], lambda _: b""]
)
async def test_what_was_changed_is_not_taken(damage: Any) -> None:
    codec = EncryptionCodec(Keys.of([OLD]))
    (sealed,) = await codec.encode([payload()])
    sealed.data = damage(sealed.data)
    with pytest.raises(EncryptionError, match="has changed since it was encrypted with key"):
        await codec.decode([sealed])


async def test_values_may_be_exchanged_and_plain_ones_are_taken() -> None:
    codec = EncryptionCodec(Keys.of([OLD]))
    first, second = await codec.encode([payload(), Payload(metadata={"encoding": b"json/plain"}, data=b"2")])
    plain = Payload(metadata={"encoding": b"json/plain"}, data=b"3")
    assert [each.data for each in await codec.decode([second, first, plain])] == [b"2", payload().data, b"3"]


class Zipped(PayloadCodec):
    """Another codec."""

    async def encode(self, payloads: Any) -> list[Payload]:
        return [Payload(metadata={"encoding": b"zip"}, data=zlib.compress(p.SerializeToString())) for p in payloads]

    async def decode(self, payloads: Any) -> list[Payload]:
        return [
            Payload.FromString(zlib.decompress(p.data)) if p.metadata["encoding"] == b"zip" else p for p in payloads
        ]


async def test_another_codec_comes_before_it() -> None:
    converter = encryption.data_converter(Keys.of([OLD]), DataConverter(payload_codec=Zipped()))
    (sealed,) = await converter.encode(["x" * 10_000])
    assert sealed.metadata["encoding"] == ENCODING and len(sealed.data) < 300
    assert await converter.decode([sealed]) == ["x" * 10_000]


async def test_an_error_quotes_little_of_what_is_no_key_id() -> None:
    codec = EncryptionCodec(Keys.of([new_key()]))
    metadata = {"encoding": ENCODING, "encryption-key-id": b"k" * 1_000_000}
    with pytest.raises(UnknownKeyError) as caught:
        await codec.decode([Payload(metadata=metadata, data=b"x" * 100)])
    assert len(str(caught.value)) < 300


def test_what_encrypts_already_is_not_encrypted_again() -> None:
    with pytest.raises(DefinitionError, match="already encrypts, with other keys"):
        encryption.data_converter(Keys.of([NEW]), encryption.data_converter(Keys.of([OLD])))


@pytest.mark.parametrize(
    "base", [DataConverter.default.failure_converter_class, DefaultFailureConverterWithEncodedAttributes]
)
async def test_errors_and_their_causes_are_sealed(base: Any) -> None:
    clear, converter = (
        DataConverter.default,
        encryption.data_converter(Keys.of([OLD]), DataConverter(failure_converter_class=base)),
    )
    came = Failure()
    await clear.encode_failure(ApplicationError(MARKER), came)
    error = ApplicationError(f"outer {MARKER}")
    error.__cause__ = await clear.decode_failure(came)  # from before there were keys
    failure = Failure()
    await converter.encode_failure(error, failure)
    assert MARKER.encode() not in failure.SerializeToString()
    again = await converter.decode_failure(failure)
    assert (again.message, again.__cause__.message) == (f"outer {MARKER}", MARKER)  # type: ignore[attr-defined,union-attr]


@pytest.mark.needs_cache("megabytes are replayed again and again")
async def test_the_most_that_temporal_takes_is_the_same(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="large")
    async def large(ctx: Context[Any], step: Step) -> Any:
        return len(await step.run("back", lambda: ctx.input.data))

    most = MAX_PAYLOAD_BYTES - 1_000  # of what the step captured
    async with workers(app):
        assert await (await large.start("x" * most)).result() == most
        with pytest.raises(PayloadTooLargeError, match="2,080,769 bytes of JSON; Temporal stores at most 2,080,768"):
            await large.start("x" * (MAX_PAYLOAD_BYTES - 1))


# --- keys ----------------------------------------------------------------------------------------------------------


def test_a_key_is_taken_however_base64_is_written() -> None:
    for key in (new_key() for _ in range(20)):
        secret = base64.urlsafe_b64decode(f"{key}=")
        spelled = [key, f" {key}=\n", base64.b64encode(secret).decode(), base64.urlsafe_b64encode(secret).decode()]
        assert {Key.parse(text) for text in spelled} == {Key.parse(key)}
        assert key not in repr(Keys.of([key])) and repr(secret) not in repr(Keys.of([key]))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hunter2!", "it is not valid Base64"),
        ("ä" * 43, "it is not valid Base64"),
        (OLD[:-3], "it has 30 bytes, not 32"),
        ("A" * 43, "its bytes are not random"),
    ],
    ids=["no Base64", "not ASCII", "short", "not random"],  # keys are others in each process
)
def test_what_is_no_key_is_refused_and_not_shown(text: str, why: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        Keys.of([OLD, text])
    assert f"STEPORAL_ENCRYPTION_KEYS: key 2 is not valid: {why}" in str(raised.value)
    assert text not in str(raised.value)


async def test_a_client_that_connects_by_itself_takes_the_keys_of_the_environment(
    plain: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", plain.service_client.config.target_host)
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("STEPORAL_ENCRYPTION_KEYS", f"{NEW},{OLD}")
    (sealed,) = await (await steporal.Client("shop").connect()).data_converter.encode([MARKER])
    assert key_of(sealed) == Key.parse(NEW).id
    monkeypatch.setenv("STEPORAL_ENCRYPTION_KEYS", " , ")
    with pytest.raises(DefinitionError, match="STEPORAL_ENCRYPTION_KEYS is set but contains no key"):
        await steporal.Client("shop").connect()
