"""The client against a peer that says what it is told, in process and over a Unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn

from pandastack.cluster import EngineClient
from pandastack.cluster.exec_records import STDOUT, ExecResult, Output
from pandastack.errors import (
    CapacityError,
    GuestError,
    NotFoundError,
    PandastackError,
    ServerError,
    StorageFullError,
    UnavailableError,
)
from tests.cluster.scripted_engine import ScriptedEngine, record, result

pytestmark = pytest.mark.anyio
ID = "00000000-0000-4000-8000-000000000000"


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


async def test_objects_come_back_as_the_engine_sent_them(client: EngineClient) -> None:
    assert (await client.health())["vmm"] == "scripted"
    assert (await client.templates())[0]["name"] == "base"
    assert (await client.template("ubuntu-24.04"))["name"] == "base"
    assert (await client.create(ID, "base"))["boot_ms"] == 37
    assert [machine["id"] for machine in await client.sandboxes()] == [ID]
    assert (await client.sandbox(ID))["usage"]["threads"] == 3
    assert await client.console(ID) == "booting\n"
    await client.delete(ID)
    with pytest.raises(NotFoundError):
        await client.delete(ID)


async def test_files_stream_both_ways(client: EngineClient, engine: ScriptedEngine) -> None:
    await client.create(ID, "base")

    async def content() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 1000

    assert await client.write_file(ID, "/a b/ü", content()) == {"path": "/a b/ü", "bytes": 10_000}
    async with client.read_file(ID, "/a b/ü") as (length, chunks):
        assert (length, b"".join([c async for c in chunks])) == (10_000, b"x" * 10_000)
    with pytest.raises(NotFoundError, match="/missing"):
        async with client.read_file(ID, "/missing"):
            pass
    await client.delete_file(ID, "/a b/ü")
    assert "/a b/ü" not in engine.files


async def test_exec_records_arrive_as_they_come(client: EngineClient, engine: ScriptedEngine) -> None:
    await client.create(ID, "base")
    go_on = anyio.Event()

    async def script(_command: dict[str, Any]) -> AsyncIterator[bytes]:
        yield record(STDOUT, b"one")
        await go_on.wait()
        yield result(3)

    engine.exec_records = script
    async with client.exec(ID, {"cmd": "x"}) as records:
        assert await anext(records) == Output(STDOUT, b"one")
        go_on.set()
        assert [r async for r in records] == [ExecResult(3, 1500)]


async def test_leaving_an_exec_early_reaches_the_engine(client: EngineClient, engine: ScriptedEngine) -> None:
    await client.create(ID, "base")

    async def script(_command: dict[str, Any]) -> AsyncIterator[bytes]:
        yield record(STDOUT, b"one")
        await anyio.sleep_forever()

    engine.exec_records = script
    async with client.exec(ID, {"cmd": "x"}) as records:
        await anext(records)
    with anyio.fail_after(5):
        await engine.exec_ended.wait()


async def test_output_without_a_result_is_not_an_end(client: EngineClient, engine: ScriptedEngine) -> None:
    await client.create(ID, "base")

    async def script(_command: dict[str, Any]) -> AsyncIterator[bytes]:
        yield record(STDOUT, b"one")

    engine.exec_records = script
    with pytest.raises(UnavailableError, match="unknown"):
        async with client.exec(ID, {"cmd": "x"}) as records:
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
    engine.refusal = error
    with pytest.raises(type(error)) as caught:
        await client.create(ID, "base")
    assert type(caught.value) is type(error)
    assert (caught.value.message, caught.value.hint, caught.value.detail) == (error.message, error.hint, error.detail)
    assert getattr(caught.value, "retry_after", None) == getattr(error, "retry_after", None)


async def test_events_begin_with_a_sign_of_life(client: EngineClient, engine: ScriptedEngine) -> None:
    events = client.events()
    assert await anext(events) is None
    await engine.announce({"type": "vm.died", "sandbox_id": ID, "payload": {"pid": 7}})
    assert await anext(events) == {"type": "vm.died", "sandbox_id": ID, "payload": {"pid": 7}}
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
