"""Backups of databases over the API: a scripted engine whose databases are one real PostgreSQL of this host."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.websockets import WebSocket, WebSocketDisconnect

from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDOUT, Output, Record
from pandastack.contract.volumes import OwnVolume
from pandastack.errors import StorageFullError
from pandastack.model.caller import Caller
from pandastack.products.databases import Archives, Databases
from pandastack.products.databases.archive import archives
from pandastack.products.databases.archive.archive import Archive
from pandastack.products.databases.archive.drills import DRILL
from pandastack.products.databases.server import SOCKET
from pandastack.products.databases.spec import DISK
from pandastack.products.databases.wire import Session, SqlError
from pandastack.services import ControlPlane
from pandastack.services.records.spec import NewSandbox
from tests.cluster.scripted_engine import TEMPLATE, ScriptedEngine, result
from tests.cluster.scripted_postgres import DISK as DF
from tests.support import api as support
from tests.support import postgres
from tests.support.api import Api, Serve, refusal

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(postgres.missing() is not None, reason=str(postgres.missing())),
]

DATABASES = "/v1/databases"


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    with postgres.serving() as directory:
        yield directory / ".s.PGSQL.5432"


async def run(server: Path, sql: str) -> None:
    async with await anyio.connect_unix(str(server)) as stream:
        session = Session(stream)
        await session.open({"user": "pandastack", "database": "postgres"})
        await session.query(sql)


@pytest.fixture
async def engine(server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    """An engine all of whose databases are the one server."""
    await run(server, "DROP ROLE IF EXISTS postgres; CREATE ROLE postgres SUPERUSER LOGIN REPLICATION")
    kept = replace(support.SETTINGS, database_backups=str(tmp_path / "backups"))
    monkeypatch.setattr("tests.api.conftest.SETTINGS", kept)
    monkeypatch.setattr(archives, "_TICK_SECONDS", 0.05)
    monkeypatch.setattr(archives, "_SETTLE_SECONDS", 3600.0)
    engine = ScriptedEngine()
    engine.templates["", "postgres"] = replace(TEMPLATE, name="postgres")

    async def relay(sandbox: str, socket: WebSocket) -> None:
        async with await anyio.connect_unix(str(server)) as stream, anyio.create_task_group() as both:

            async def send() -> None:
                with suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, RuntimeError):
                    while True:
                        await socket.send_bytes(await stream.receive())
                both.cancel_scope.cancel()

            both.start_soon(send)
            with suppress(WebSocketDisconnect, anyio.BrokenResourceError, anyio.ClosedResourceError):
                while True:
                    given = await socket.receive()
                    if given["type"] == "websocket.disconnect" or "close" in (given.get("text") or ""):
                        break
                    if given.get("bytes"):
                        await stream.send(given["bytes"])
            both.cancel_scope.cancel()

    engine.sockets[SOCKET] = relay
    return engine


@asynccontextmanager
async def serving(serve: Serve, engine: ScriptedEngine, token: str = "") -> AsyncIterator[Api]:
    async with serve(engine, token) as api:
        databases: Databases = api.app.state.databases
        databases.announced(5432)
        yield api


@pytest.fixture
async def api(serve: Serve, engine: ScriptedEngine) -> AsyncIterator[Api]:
    async with serving(serve, engine) as api:
        yield api


async def until(api: Api, database_id: str, is_so: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    with anyio.fail_after(30):
        while True:
            body: dict[str, Any] = (await api.http.get(f"{DATABASES}/{database_id}")).json()
            if is_so(body):
                return body
            await anyio.sleep(0.02)


async def archived(api: Api) -> str:
    """The id of a new database, once its log arrives."""
    made = await api.http.post(DATABASES, json={"label": "orders"})
    assert made.status_code == 202, made.text
    key: str = made.json()["id"]
    await until(api, key, lambda body: body.get("archive", {}).get("state") == "archiving")
    return key


async def test_the_life_of_an_archive(api: Api, server: Path, tmp_path: Path) -> None:
    key = await archived(api)
    empty = (await api.http.get(f"{DATABASES}/{key}/backups")).json()
    assert (empty["windows"], empty["bases"]) == ([], [])
    body = refusal(await api.http.post(f"{DATABASES}/{key}/clone", json={"target_time": "2026-01-01T00:00:00Z"}), 409)
    assert f"/v1/databases/{key}/backups" in body["hint"]
    again = {"idempotency-key": "once"}
    made = await api.http.post(f"{DATABASES}/{key}/backups", headers=again)
    assert made.status_code == 201, made.text
    (base,) = made.json()["bases"]
    assert (await api.http.post(f"{DATABASES}/{key}/backups", headers=again)).json()["bases"] == [base]
    assert base["size_bytes"] > 1 << 20
    shown = await until(api, key, lambda body: body.get("restore_window"))
    assert shown["restore_window"]["earliest"] >= base["created_at"][:19]
    assert (await api.http.get(DATABASES)).json()[0]["restore_window"] == shown["restore_window"]
    before = len(api.engine.machines)
    for moment in ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"):
        body = refusal(await api.http.post(f"{DATABASES}/{key}/clone", json={"target_time": moment}), 400)
        assert body["field"] == "target_time" and shown["restore_window"]["earliest"] in body["hint"]
    assert len(api.engine.machines) == before == 1
    assert len((await api.http.get(DATABASES)).json()) == 1
    directory = tmp_path / "backups" / key
    assert {each.name for each in directory.glob("*/bases/*")} == {"0001.json", "0001.tar.gz"}
    other = await api.another("elsewhere")
    for method, path in (("GET", "backups"), ("POST", "backups"), ("POST", "clone")):
        wanted = {"json": {"target_time": base["created_at"]}} if path == "clone" else {}
        refusal(await api.http.request(method, f"{DATABASES}/{key}/{path}", headers=other, **wanted), 404)
    assert (await api.http.delete(f"{DATABASES}/{key}")).status_code == 204
    assert not directory.exists()


async def disk_is_shown(_spec: ExecSpec) -> AsyncIterator[Record | bytes]:
    yield Output(STDOUT, DF.encode())
    yield result()


async def test_what_is_not_archived_is_a_lag_that_goes_away(api: Api, server: Path) -> None:
    key = await archived(api)
    databases: Databases = api.app.state.databases

    async def lag() -> float:
        await databases.looks.take()
        name = f'pandastack_database_archive_lag_bytes{{database="{key}"}} '
        (line,) = (each for each in (await api.http.get("/metrics")).text.splitlines() if each.startswith(name))
        return float(line.removeprefix(name))

    await run(server, "ALTER ROLE postgres NOREPLICATION")
    await run(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
    await until(api, key, lambda body: body["archive"]["state"] == "broken")
    before = await lag()
    await run(server, "CREATE TABLE late AS SELECT generate_series(1, 10000) AS x")
    assert await lag() > before + 100_000
    api.engine.exec_records = disk_is_shown
    shown = (await api.http.get(f"{DATABASES}/{key}/stats")).json()
    assert shown["archive_lag_bytes"] > before + 100_000
    await run(server, "DROP TABLE late; ALTER ROLE postgres REPLICATION")
    with anyio.fail_after(30):
        while await lag():  # noqa: ASYNC110
            await anyio.sleep(0.05)
    assert (await api.http.delete(f"{DATABASES}/{key}")).status_code == 204


async def test_the_first_base_comes_by_itself(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_SETTLE_SECONDS", 0.0)
    key = await archived(api)
    await until(api, key, lambda body: body.get("restore_window"))
    assert (await api.http.delete(f"{DATABASES}/{key}")).status_code == 204


async def test_a_server_that_refuses_is_shown_and_tried_again(api: Api, server: Path) -> None:
    key = await archived(api)
    await run(server, "ALTER ROLE postgres NOREPLICATION NOSUPERUSER")
    await run(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
    broken = await until(api, key, lambda body: body["archive"]["state"] == "broken")
    assert broken["status"] == "running" and broken["archive"]["error"]
    await run(server, "ALTER ROLE postgres REPLICATION SUPERUSER")
    await until(api, key, lambda body: body["archive"]["state"] == "archiving")
    assert (await api.http.delete(f"{DATABASES}/{key}")).status_code == 204


async def test_the_archive_of_a_database_of_another_host(api: Api, tmp_path: Path) -> None:
    key = await archived(api)
    base = (await api.http.post(f"{DATABASES}/{key}/backups")).json()["bases"][0]
    shutil.copytree(tmp_path / "backups" / key, tmp_path / "kept")
    assert (await api.http.delete(f"{DATABASES}/{key}")).status_code == 204
    wanted = {"target_time": "2020-01-01T00:00:00Z"}
    refusal(await api.http.post(f"{DATABASES}/{key}/clone", json=wanted), 404)
    shutil.copytree(tmp_path / "kept", tmp_path / "backups" / key)
    body = refusal(await api.http.post(f"{DATABASES}/{key}/clone", json=wanted), 400)
    assert body["detail"]["earliest"] >= base["created_at"][:19]
    refusal(await api.http.post(f"{DATABASES}/{key}/clone", json={}), 404)
    refusal(await api.http.post(f"{DATABASES}/..%2F{key}/clone", json=wanted), 404)
    headers = await api.another("elsewhere")
    refusal(await api.http.post(f"{DATABASES}/{key}/clone", json=wanted, headers=headers), 404)


async def drilled(api: Api, key: str) -> dict[str, Any]:
    with anyio.fail_after(30):
        while True:
            body: dict[str, Any] = (await api.http.get(f"{DATABASES}/{key}/backups")).json()
            if "drill" in body:
                return body["drill"]  # type: ignore[no-any-return]
            await anyio.sleep(0.02)


@pytest.mark.parametrize(("exit_code", "worked"), [(0, True), (1, False)])
async def test_restores_are_tried_out(
    api: Api, server: Path, monkeypatch: pytest.MonkeyPatch, exit_code: int, worked: bool
) -> None:
    with suppress(SqlError):
        await run(server, "CREATE DATABASE pandastack")
    commands = list[str]()

    async def execute(spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        if "restore.py" in spec.cmd:
            commands.append(spec.cmd)
        yield result(exit_code)

    api.engine.exec_records = execute
    key = await archived(api)
    assert (await api.http.post(f"{DATABASES}/{key}/backups")).status_code == 201
    kept: Archives = api.app.state.databases.archives
    assert await kept.drill_next(time.time()) is False
    assert await kept.drill_next(time.time() + 8 * 24 * 3600) is True
    drill = await drilled(api, key)
    assert ("error" not in drill) is worked and drill["seconds"] > 0
    assert [each.partition("restore.py ")[2] for each in commands] == ["1024"]
    assert list(api.engine.machines) == [key], "its machine is gone"
    metrics = (await api.http.get("/metrics")).text
    assert f'pandastack_database_drills_total{{result="{"ok" if worked else "failed"}"}} 1.0' in metrics
    assert 'pandastack_database_archives{state="archiving"} 1.0' in metrics
    assert (await api.http.delete(f"{DATABASES}/{key}")).status_code == 204


async def test_what_is_restored_has_a_disk_as_large_as_its_source(api: Api, server: Path, tmp_path: Path) -> None:
    with suppress(SqlError):
        await run(server, "CREATE DATABASE pandastack")

    async def execute(spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        yield result()

    api.engine.exec_records = execute
    api.engine.template_volumes = (OwnVolume(DISK, 10240),)
    grown = api.engine.volumes.grown
    source = await archived(api)
    assert (await api.http.post(f"{DATABASES}/{source}/backups")).status_code == 201
    assert (await api.http.patch(f"{DATABASES}/{source}", json={"disk_gb": 20})).json()["disk_gb"] == 20
    assert json.loads((tmp_path / "backups" / source / "archive.json").read_bytes())["disk_gb"] == 20
    moment = (await until(api, source, lambda body: body.get("restore_window")))["restore_window"]["earliest"]
    wanted = {"target_time": moment}
    await until(api, source, lambda body: body["archive"].get("as_of", "") > moment)
    api.engine.refusals["grow_own"] = StorageFullError("insufficient host storage for volume")
    refusal(await api.http.post(f"{DATABASES}/{source}/clone", json=wanted), 507)
    assert list(api.engine.machines) == [source] and len((await api.http.get(DATABASES)).json()) == 1
    kept: Archives = api.app.state.databases.archives
    assert await kept.drill_next(time.time() + 8 * 24 * 3600) is True
    assert list(api.engine.machines) == [source] and kept.drills.results == {"ok": 0, "failed": 0}
    api.engine.refusals.clear()
    assert await kept.drill_next(time.time() + 8 * 24 * 3600) is True
    assert kept.drills.results == {"ok": 1, "failed": 0} and set(grown.values()) == {OwnVolume(DISK, 20480)}
    restored = (await api.http.post(f"{DATABASES}/{source}/clone", json=wanted)).json()["id"]
    shown = await until(api, restored, lambda body: body["status"] == "running")
    assert shown["disk_gb"] == 20 and grown[restored] == OwnVolume(DISK, 20480)
    shutil.copytree(tmp_path / "backups" / source, tmp_path / "kept")
    for each in (source, restored):
        assert (await api.http.delete(f"{DATABASES}/{each}")).status_code == 204
    shutil.copytree(tmp_path / "kept", tmp_path / "backups" / source)  # as on another host
    again = await api.http.post(f"{DATABASES}/{source}/clone", json=wanted)
    assert again.status_code == 202, again.text
    assert (await until(api, again.json()["id"], lambda body: body["status"] == "running"))["disk_gb"] == 20


async def test_the_machine_of_a_drill_that_was_interrupted_is_deleted(api: Api) -> None:
    plane: ControlPlane = api.app.state.plane
    wanted = NewSandbox(template="postgres", metadata={DRILL: "x"}, product="database")
    await plane.sandboxes.create(Caller.server("default"), wanted)
    await api.app.state.databases.archives.drills.sweep()
    assert api.engine.machines == {}


async def test_a_restore_that_was_interrupted_is_made_anew(serve: Serve, engine: ScriptedEngine) -> None:
    begun = anyio.Event()

    async def hang(spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        begun.set()
        await anyio.sleep_forever()
        yield result()

    engine.exec_records = hang
    async with serving(serve, engine) as first:
        source = await archived(first)
        assert (await first.http.post(f"{DATABASES}/{source}/backups")).status_code == 201
        shown = await until(first, source, lambda body: body.get("restore_window"))
        moment = shown["restore_window"]["earliest"]
        await until(first, source, lambda body: body["archive"].get("as_of", "") > moment)
        made = await first.http.post(f"{DATABASES}/{source}/clone", json={"target_time": moment, "label": "again"})
        assert made.status_code == 202, made.text
        key, machine = made.json()["id"], engine.machines[made.json()["id"]]
        with anyio.fail_after(30):
            await begun.wait()
        token = first.token

    async def end(spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        yield result()

    engine.exec_records = end
    async with serving(serve, engine, token) as second:
        restored = await until(second, key, lambda body: body["status"] == "running")
        assert (restored["cloned_from"], restored["target_time"][:19]) == (source, moment[:19])
        assert engine.machines[key] is not machine, "how far it had come is not known"
        for each in (source, key):
            assert (await second.http.delete(f"{DATABASES}/{each}")).status_code == 204
        assert engine.machines == {}


async def test_a_backup_that_is_being_taken_ends_before_its_archive_is_deleted(
    api: Api, server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, begun, ended = await archived(api), anyio.Event(), anyio.Event()

    async def take(_archive: Archive, _connect: object) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            assert (tmp_path / "backups" / key).exists()
            ended.set()

    async def back_up() -> None:
        refusal(await api.http.post(f"{DATABASES}/{key}/backups"), 409)

    monkeypatch.setattr(Archive, "take_base", take)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(back_up)
        await begun.wait()
        assert (await api.http.delete(f"{DATABASES}/{key}")).status_code == 204
        assert ended.is_set() and not (tmp_path / "backups" / key).exists()
