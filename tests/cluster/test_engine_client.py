"""The client against a peer that says what it is told, in process and over a Unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn

from pandastack.cluster import EngineClient
from pandastack.contract.codec import encode
from pandastack.contract.events import MachineDied
from pandastack.contract.files import Written
from pandastack.contract.health import Health
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDOUT, ExecResult, Output, Record
from pandastack.contract.references import TemplateRef
from pandastack.contract.sandboxes import SandboxSpec
from pandastack.contract.version import HEADER, VERSION
from pandastack.errors import (
    CapacityError,
    GuestError,
    NotFoundError,
    PandastackError,
    ServerError,
    StorageFullError,
    UnavailableError,
)
from tests.cluster.scripted_engine import TEMPLATE, USAGE, ScriptedEngine, result

pytestmark = pytest.mark.anyio
ID = "00000000-0000-4000-8000-000000000000"
HEALTH = Health("ok", {}, "tcg", "A process.", "qemu", 0, {"kvm": False})
SPEC, BASE, COMMAND = SandboxSpec(ID), TemplateRef("base"), ExecSpec(cmd="x")


@pytest.fixture
async def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture(params=["in process", "unix socket"])
async def client(request: pytest.FixtureRequest, engine: ScriptedEngine, tmp_path: Path) -> AsyncIterator[EngineClient]:
    if request.param == "in process":
        async with EngineClient.in_process(engine.app) as opened:
            yield opened
        return
    path = str(tmp_path / "engine.sock")
    server = uvicorn.Server(uvicorn.Config(engine.app, uds=path, log_level="critical", lifespan="off"))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server._serve)
        while not server.started:
            await anyio.lowlevel.checkpoint()
        async with EngineClient.connect(f"unix:{path}") as opened:
            yield opened
        server.should_exit = server.force_exit = True


async def test_messages_come_back_as_the_engine_sent_them(client: EngineClient, engine: ScriptedEngine) -> None:
    assert (await client.health()).vmm == "scripted"
    assert await client.templates() == (TEMPLATE,)
    assert await client.template("ubuntu-24.04") == TEMPLATE
    own = replace(TEMPLATE, name="app", owner="acme")
    engine.templates["acme", "app"] = own
    assert await client.template("app", "acme") == own
    assert await client.templates() == (TEMPLATE, own)
    await client.delete_template("app", "acme")
    assert await client.templates() == (TEMPLATE,)
    assert (await client.create(SPEC, BASE)).boot_ms == 37
    assert [each.id for each in await client.sandboxes()] == [ID]
    assert (await client.sandbox(ID)).usage == USAGE
    assert await client.console(ID) == "booting\n"
    await client.delete(ID)
    with pytest.raises(NotFoundError):
        await client.delete(ID)


async def test_files_stream_both_ways(client: EngineClient, engine: ScriptedEngine) -> None:
    await client.create(SPEC, BASE)

    async def content() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 1000

    assert await client.write_file(ID, "/a b/ü", content()) == Written("/a b/ü", 10_000)
    async with client.read_file(ID, "/a b/ü") as (length, chunks):
        assert (length, b"".join([c async for c in chunks])) == (10_000, b"x" * 10_000)
    with pytest.raises(NotFoundError, match="/missing"):
        async with client.read_file(ID, "/missing"):
            pass
    await client.delete_file(ID, "/a b/ü")
    assert "/a b/ü" not in engine.files


async def test_exec_records_arrive_as_they_come(client: EngineClient, engine: ScriptedEngine) -> None:
    await client.create(SPEC, BASE)
    go_on = anyio.Event()

    async def script(_spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        yield Output(STDOUT, b"one")
        await go_on.wait()
        yield result(3)

    engine.exec_records = script
    async with client.exec(ID, COMMAND) as records:
        assert await anext(records) == Output(STDOUT, b"one")
        go_on.set()
        assert [r async for r in records] == [ExecResult(3, duration_us=1500)]


async def test_leaving_an_exec_early_reaches_the_engine(client: EngineClient, engine: ScriptedEngine) -> None:
    await client.create(SPEC, BASE)

    async def script(_spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        yield Output(STDOUT, b"one")
        await anyio.sleep_forever()

    engine.exec_records = script
    async with client.exec(ID, COMMAND) as records:
        await anext(records)
    with anyio.fail_after(30):
        await engine.exec_ended.wait()


async def test_output_without_a_result_is_not_an_end(client: EngineClient, engine: ScriptedEngine) -> None:
    await client.create(SPEC, BASE)

    async def script(_spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        yield Output(STDOUT, b"one")

    engine.exec_records = script
    with pytest.raises(UnavailableError, match="unknown"):
        async with client.exec(ID, COMMAND) as records:
            _ = [r async for r in records]


@pytest.mark.parametrize(
    "error",
    [
        CapacityError("no compute capacity available", retry_after=15),
        StorageFullError("insufficient host storage for sandbox"),
        GuestError("the guest does not answer", hint="look at the console"),
        ServerError("boot failed", detail={"log": "x"}),
    ],
)
async def test_errors_keep_their_class(client: EngineClient, engine: ScriptedEngine, error: PandastackError) -> None:
    engine.refusals["create"] = error
    with pytest.raises(type(error)) as caught:
        await client.create(SPEC, BASE)
    assert type(caught.value) is type(error)
    assert (caught.value.message, caught.value.hint, caught.value.detail) == (error.message, error.hint, error.detail)
    assert getattr(caught.value, "retry_after", None) == getattr(error, "retry_after", None)


async def test_events_begin_with_a_sign_of_life(client: EngineClient, engine: ScriptedEngine) -> None:
    events = client.events()
    assert await anext(events) is None
    died = MachineDied(ID, 7, "killed")
    await engine.announce(died)
    assert await anext(events) == died
    await events.aclose()


async def test_an_engine_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    async with EngineClient.connect(f"unix:{tmp_path}/nothing.sock") as client:
        with pytest.raises(UnavailableError) as caught:
            await client.health()
        with pytest.raises(UnavailableError):
            await anext(client.events())
    words = caught.value.message.lower()
    assert not any(word in words for word in ("timeout", "deadline", "refused", "no route"))


async def test_an_answer_that_is_not_json_is_a_server_error() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 502, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>", "more_body": False})

    async with EngineClient.in_process(app) as client:
        with pytest.raises(ServerError, match="HTTP 502"):
            await client.health()


def answering(body: bytes, status: int = 200, version: str | None = VERSION) -> Any:
    """An application that always gives this answer."""
    headers = [] if version is None else [(HEADER.encode(), version.encode())]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return app


@pytest.mark.parametrize("version", ["0", None])
async def test_an_engine_of_another_version_is_refused_with_both_named(version: str | None) -> None:
    named = "unknown" if version is None else f"'{version}'"
    async with EngineClient.in_process(answering(encode(HEALTH), version=version)) as client:
        with pytest.raises(ServerError, match=f"engine speaks version {named} .* control plane version '{VERSION}'"):
            await client.health()


async def test_a_control_plane_of_another_version_is_refused_before_anything_is_done(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pandastack.cluster.connection._JSON_HEADERS", {HEADER: "0"})
    async with EngineClient.in_process(engine.app) as client:
        with pytest.raises(ServerError, match=f"engine speaks version '{VERSION}' .* control plane version '0'"):
            await client.create(SPEC, BASE)
    assert engine.calls == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", encode(HEALTH)[:-1] + b', "more": 1}'])
async def test_an_answer_that_is_no_message_is_a_server_error(body: bytes) -> None:
    async with EngineClient.in_process(answering(body)) as client:
        with pytest.raises(ServerError, match="malformed"):
            await client.health()


async def test_a_long_answer_is_decoded_and_one_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    health = replace(HEALTH, checks={str(number): "x" * 1000 for number in range(1000)})
    async with EngineClient.in_process(answering(encode(health))) as client:
        assert await client.health() == health
        monkeypatch.setattr("pandastack.cluster.connection.ANSWER_BYTES", 500_000)
        with pytest.raises(ServerError, match="longer than 500000 bytes"):
            await client.health()
