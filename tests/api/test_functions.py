"""Functions over the API, against a scripted engine and a scripted process in its guests."""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from sqlalchemy import text
from standardwebhooks.webhooks import Webhook

from pandastack.errors import CapacityError, ConflictError, NotFoundError, ServerError
from pandastack.model.caller import Caller
from pandastack.model.network import Egress, NetworkPolicy
from pandastack.products.functions import Functions, ScheduledCall
from pandastack.products.functions.deploys import plan_pruned
from pandastack.products.functions.grants import bare, run_network
from pandastack.services import ControlPlane
from pandastack.store import functions as table
from pandastack.store.functions import FunctionState, RunRecord, RunStatus
from tests.cluster.scripted_engine import ScriptedEngine
from tests.cluster.scripted_functions import ScriptedFunctions, distinct
from tests.support.api import Api, Serve, refusal
from tests.support.receiver import receiving

pytestmark = pytest.mark.anyio

FUNCTIONS = "/v1/functions"
SERVER = Caller.server("default")
SOURCE = b"def handler(event, context):\n    return event\n"
CODE = base64.b64encode(SOURCE).decode()


@pytest.fixture
async def api(serve: Serve, tmp_path: Path) -> AsyncIterator[Api]:
    settings = {"functions_dir": str(tmp_path / "functions"), "max_function_runs": 3, "max_json_bytes": 1 << 20}
    settings["function_retry_seconds"] = 0.001
    async with serve(ScriptedEngine(), settings=settings) as api:
        yield api


@pytest.fixture
def guest(api: Api) -> ScriptedFunctions:
    return ScriptedFunctions(api.engine)


def functions_of(api: Api) -> Functions:
    functions: Functions = api.app.state.functions
    return functions


def plane_of(api: Api) -> ControlPlane:
    plane: ControlPlane = api.app.state.plane
    return plane


async def make(api: Api, name: str = "f", **wanted: Any) -> dict[str, Any]:
    body = {"name": name, "runtime": "python", "code": CODE, **wanted}
    made = await api.http.post(FUNCTIONS, json=body)
    assert made.status_code == 200, made.text
    value: dict[str, Any] = made.json()
    return value


async def reached(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    with anyio.fail_after(30):
        for _ in range(3000):
            if holds():
                return
            await anyio.sleep(0.01)


async def settled(api: Api) -> None:
    """Wait until every machine of a function has ended."""
    with anyio.fail_after(30):
        for _ in range(3000):
            if not (await api.http.get("/v1/sandboxes")).json():
                return
            await anyio.sleep(0.01)


def archive(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


async def test_the_life_of_a_function(api: Api, guest: ScriptedFunctions) -> None:
    made = await make(api, env={"KEY": "v"}, public=True)
    one = f"{FUNCTIONS}/{made['id']}"
    assert (made["version"], made["is_ready"], made["kind"], made["entrypoint"]) == (1, True, "handler", "handler.py")
    assert (made["template"], made["env"], made["code_size"]) == ("code-interpreter", {"KEY": "v"}, len(SOURCE))
    assert made["url"] == made["endpoint"] and made["url"].endswith(f"{one}/http-invoke")
    assert "code" not in made
    assert (await api.http.get(one)).json() == made
    assert (await api.http.get(FUNCTIONS)).json() == [made] == (await api.http.get(f"{FUNCTIONS}?name=f")).json()
    assert (await api.http.get(f"{FUNCTIONS}?name=g")).json() == []
    assert gzip.decompress((await api.http.get(f"{one}/code")).content) == SOURCE
    run = (await api.http.post(f"{one}/invoke", json={"input": {"n": 1}})).json()
    assert (run["status"], run["exit_code"], run["stdout"]) == ("success", 0, "out\n")
    assert run["result"] == {"event": {"n": 1}, "env": {"KEY": "v"}}
    assert (
        (await api.http.get(f"{one}/runs")).json() == [run] == [(await api.http.get(f"{one}/runs/{run['id']}")).json()]
    )
    metrics = (await api.http.get(f"{one}/metrics?period=24")).json()
    assert metrics == {
        "period": "24h",
        "total": 1,
        "errors": 0,
        "error_rate": 0.0,
        "p50_ms": 5.0,
        "p95_ms": 5.0,
        "p99_ms": 5.0,
        "cold_start_rate": 1.0,
    }
    await settled(api)
    assert (await api.http.get("/v1/snapshots")).json()["snapshots"] == [], "its snapshots are its own"
    assert (await api.http.delete(one)).status_code == 204
    for answer in (await api.http.get(one), await api.http.delete(one), await api.http.post(f"{one}/invoke")):
        refusal(answer, 404)
    assert await plane_of(api).snapshots.all() == []
    assert await plane_of(api).secrets.owned("default", "functions") == []


async def test_what_is_refused(api: Api, guest: ScriptedFunctions) -> None:
    for field, body in {
        "name": {"name": " x"},
        "runtime": {"runtime": "cobol"},
        "entrypoint": {"entrypoint": "../x.py"},
        "code": {"code": "*"},
        "env": {"env": {"A=B": "x"}},
        "timeout_seconds": {"timeout_seconds": 1e9},
        "memory_mb": {"memory_mb": 0},
        "concurrency": {"concurrency": 101},
    }.items():
        given = {"name": "f", "runtime": "python", "code": CODE, **body}
        assert refusal(await api.http.post(FUNCTIONS, json=given), 400)["field"] == field
    too_long = base64.b64encode(bytes(512 * 1024 + 1)).decode()
    assert refusal(await api.http.post(FUNCTIONS, json={"name": "f", "runtime": "python", "code": too_long}), 413)
    made = await make(api)
    assert refusal(await api.http.post(FUNCTIONS, json={"name": "f", "runtime": "python"}), 409)["field"] == "name"
    one = f"{FUNCTIONS}/{made['id']}"
    refusal(await api.http.get(f"{one}/metrics?period=x"), 400)
    assert refusal(await api.http.post(f"{one}/runs", json={"status": "well"}), 400)["field"] == "status"
    for bundle in (
        b"",
        b"PK\x03\x04",
        b"\x1f\x8bnot gzip",
        archive({"other.py": b""}),
        archive({"../handler.py": b""}),
    ):
        refusal(await api.http.post(f"{one}/deploy", content=bundle), 400)
    refusal(await api.http.post(f"{one}/rollback", json={"version": 9}), 404)
    assert (await api.http.get(one)).json()["version"] == 1
    other = await api.another("elsewhere")
    for path in ("", "/code", "/runs", "/metrics", "/versions"):
        refusal(await api.http.get(f"{one}{path}", headers=other), 404)
    refusal(await api.http.post(f"{one}/invoke", headers=other), 404)


async def test_code_that_does_not_import_leaves_the_former_version(api: Api, guest: ScriptedFunctions) -> None:
    guest.report = {"error": "ModuleNotFoundError: No module named 'x'", "traceback": "line 1", "stderr": "seen"}
    answer = await api.http.post(FUNCTIONS, json={"name": "f", "runtime": "python", "code": CODE})
    body = refusal(answer, 400)
    assert "No module named 'x'" in body["error"] and body["detail"] == {"traceback": "line 1", "stderr": "seen"}
    assert (await api.http.get(FUNCTIONS)).json() == []
    guest.report = {"kind": "handler"}
    made = await make(api)
    one = f"{FUNCTIONS}/{made['id']}"
    guest.report = b""
    refusal(await api.http.post(f"{one}/deploy", content=SOURCE), 400)
    guest.report, guest.install = {"kind": "handler"}, (1, "no such package")
    bundle = archive({"handler.py": SOURCE, "requirements.txt": b"nothing"})
    refused = refusal(await api.http.post(f"{one}/deploy", content=bundle), 400)
    assert refused["detail"] == {"exit_code": 1, "stderr": "no such package"} and "requirements.txt" in refused["error"]
    machines = len(guest.commands)
    refused = refusal(
        await api.http.post(f"{one}/deploy", content=archive({"handler.py": SOURCE, "pdm.lock": b""})), 400
    )
    assert refused["field"] == "bundle" and "pdm.lock" in refused["error"] and len(guest.commands) == machines
    assert (await api.http.get(one)).json() == made
    assert (await api.http.post(f"{one}/invoke")).json()["version"] == 1
    await settled(api)


async def test_versions(api: Api, guest: ScriptedFunctions) -> None:
    made = await make(api)
    one = f"{FUNCTIONS}/{made['id']}"
    bundle = archive({"src/main.py": SOURCE, "data.txt": b"x"})
    form = {"bundle": ("bundle.tar.gz", bundle, "application/gzip")}
    second = (await api.http.post(f"{one}/deploy", files=form, data={"entrypoint": "src/main.py:run"})).json()
    assert (second["version"], second["entrypoint"]) == (2, "src/main.py:run")
    assert (await api.http.get(f"{one}/code")).content == bundle
    assert (await api.http.post(f"{one}/rollback")).json()["version"] == 1
    assert gzip.decompress((await api.http.get(f"{one}/code")).content) == SOURCE
    for version in (3, 4, 5):
        body = {"entrypoint": "handler.py"}
        assert (await api.http.patch(one, json=body)).json()["entrypoint"] == "handler.py"
        assert (await api.http.post(f"{one}/deploy", content=SOURCE)).json()["version"] == version
    kept = [each["version"] for each in (await api.http.get(f"{one}/versions")).json()]
    assert kept == [5, 4, 3]
    assert len(await plane_of(api).snapshots.all()) == 3
    assert refusal(await api.http.post(f"{one}/rollback", json={"version": 1}), 404)["hint"] == "kept are 5, 4, 3"


async def test_runs_that_fail(api: Api, guest: ScriptedFunctions) -> None:
    one = f"{FUNCTIONS}/{(await make(api, timeout_seconds=0.1))['id']}"

    async def status(answer: Any) -> dict[str, Any]:
        guest.answer = lambda _request: answer
        run: dict[str, Any] = (await api.http.post(f"{one}/invoke")).json()
        return run

    failed = await status(
        {"status": "error", "exit_code": 1, "error": "E: x", "traceback": "T", "stdout": "", "stderr": ""}
    )
    assert (failed["status"], failed["error"], failed["traceback"]) == ("error", "E: x", "T")
    assert (await status({"status": "timeout", "stdout": "", "stderr": ""}))["status"] == "timeout"
    assert "ended" in (await status(None))["error"]
    for nonsense in (
        b"\0\0\0\2{}",
        b"\xff\xff\xff\xff",
        b"\0\0\0\1x",
        {"status": "well"},
        {"status": "success", "result": "{"},
    ):
        assert (await status(nonsense))["status"] == "error"
    guest.may_answer = anyio.Event()
    assert (await status(None))["error"] == "timeout after 0.1 s"
    guest.may_answer.set()
    await settled(api)
    metrics = (await api.http.get(f"{one}/metrics")).json()
    assert (metrics["total"], metrics["errors"], metrics["error_rate"]) == (9, 9, 1.0)


async def test_too_many_runs_at_once(api: Api, guest: ScriptedFunctions) -> None:
    one, another = [f"{FUNCTIONS}/{(await make(api, name, concurrency=2))['id']}" for name in "ab"]
    guest.may_answer = anyio.Event()
    begun = [(await api.http.post(f"{path}/invoke", json={"async": True})) for path in (one, one, another)]
    assert [each.status_code for each in begun] == [202] * 3
    for path in (one, another):
        refused = await api.http.post(f"{path}/invoke")
        assert refusal(refused, 429)["code"] == "rate_limited" and refused.headers["retry-after"] == "1"
    guest.may_answer.set()
    ended = [await functions_of(api).wait_ended(each.json()["id"]) for each in begun]
    assert {each.status for each in ended} == {RunStatus.SUCCESS}
    assert (await api.http.get(f"{one}/runs/{ended[0].id}")).json()["status"] == "success"


async def test_a_host_without_room_is_a_refusal(api: Api, guest: ScriptedFunctions) -> None:
    one = f"{FUNCTIONS}/{(await make(api))['id']}"
    api.engine.refusals["create"] = CapacityError("no room")
    refused = await api.http.post(f"{one}/invoke")
    assert refusal(refused, 503) and refused.headers["retry-after"]
    refusal(await api.http.post(FUNCTIONS, json={"name": "g", "runtime": "python", "code": CODE}), 503)
    assert [each["name"] for each in (await api.http.get(FUNCTIONS)).json()] == ["f"]
    del api.engine.refusals["create"]
    assert (await api.http.post(f"{one}/invoke")).json()["status"] == "success"


async def test_a_function_that_is_deleted_ends_its_runs(api: Api, guest: ScriptedFunctions) -> None:
    told: list[str] = []

    async def hook(record: Any) -> None:
        told.append(record.id)

    functions_of(api).on_delete(hook)
    made = await make(api)
    guest.may_answer = anyio.Event()
    await api.http.post(f"{FUNCTIONS}/{made['id']}/invoke", json={"async": True})
    assert (await api.http.delete(f"{FUNCTIONS}/{made['id']}")).status_code == 204
    assert told == [made["id"]]
    await settled(api)


async def test_runs_of_clients_and_of_others(api: Api, guest: ScriptedFunctions) -> None:
    one = f"{FUNCTIONS}/{(await make(api))['id']}"
    given = {"status": "error", "exit_code": 3, "stdout": "o", "stderr": "e", "duration_ms": 7, "sandbox_id": "s"}
    made = (await api.http.post(f"{one}/runs", json=given)).json()
    assert given.items() <= made.items()
    assert (await api.http.post(f"{one}/runs", json={})).json()["status"] == "success"
    assert [each["status"] for each in (await api.http.get(f"{one}/runs")).json()] == ["success", "error"]


async def test_the_run_of_a_schedule_is_begun_once(api: Api, guest: ScriptedFunctions) -> None:
    made, functions = await make(api), functions_of(api)
    wanted = ScheduledCall("11111111-0000-4000-8000-000000000000", made["id"], 1, "s1", 100.0)
    first = await functions.start_scheduled(SERVER, wanted)
    assert (await functions.start_scheduled(SERVER, wanted)).id == first.id == wanted.run_id and first.version == 1
    await functions.start_scheduled(
        SERVER, replace(wanted, run_id="22222222-0000-4000-8000-000000000000", nominal_at=160)
    )
    ended = await functions.wait_ended(first.id)
    assert (ended.status, ended.schedule_id, ended.nominal_at) == (RunStatus.SUCCESS, "s1", 100.0)
    assert len(await functions.runs(SERVER, made["id"], "s1")) == 2
    with pytest.raises(ConflictError, match="version 9"):
        await functions.start_scheduled(SERVER, replace(wanted, run_id="x", version=9))
    with pytest.raises(NotFoundError):
        await functions.wait_ended("00000000-0000-4000-8000-000000000000")


async def test_a_schedule_runs_a_function_and_ends_with_it(api: Api, guest: ScriptedFunctions) -> None:
    made = await make(api)
    wanted = {"name": "nightly", "function_id": made["id"], "cron": "0 3 * * *"}
    schedule = (await api.http.post("/v1/schedules", json=wanted)).json()
    run = (await api.http.post(f"/v1/schedules/{schedule['id']}/trigger", json={})).json()
    with anyio.fail_after(30):
        while (await api.http.get(f"/v1/schedules/{schedule['id']}/runs")).json()[0]["status"] != "success":  # noqa: ASYNC110  over HTTP
            await anyio.sleep(0.01)
    ended = await functions_of(api).wait_ended(run["run_id"])
    assert (ended.status, ended.schedule_id, ended.version) == (RunStatus.SUCCESS, schedule["id"], 1)
    assert json.loads(ended.result or "")["event"]["schedule_id"] == schedule["id"]
    assert (await api.http.delete(f"{FUNCTIONS}/{made['id']}")).status_code == 204
    assert (await api.http.get("/v1/schedules")).json() == []


async def test_http(api: Api, guest: ScriptedFunctions) -> None:
    one = f"{FUNCTIONS}/{(await make(api))['id']}"
    anonymous = {"authorization": ""}
    refusal(await api.http.get(f"{one}/http-invoke", headers=anonymous), 403)
    refusal(await api.http.get(f"{FUNCTIONS}/x/http-invoke", headers=anonymous), 404)
    await api.http.patch(one, json={"public": True})
    answer = await api.http.post(f"{one}/http-invoke/a%20b?x=1", content=b"hi", headers=anonymous)
    event = answer.json()["event"]
    assert (event["rawPath"], event["rawQueryString"], event["body"]) == ("/a%20b", "x=1", "hi")
    guest.answer = lambda _request: {
        "status": "success",
        "result": '{"statusCode": 201, "headers": {"X-A": "b", "Connection": "x"}, "cookies": ["a=1", "b=2"], "body":'
        ' "x"}',
    }
    made: httpx.Response = await api.http.get(f"{one}/http-invoke")
    assert (made.status_code, made.text, made.headers["x-a"]) == (201, "x", "b")
    assert made.headers.get_list("set-cookie") == ["a=1", "b=2"] and "connection" not in made.headers
    guest.answer = lambda _request: {"status": "success", "result": '{"statusCode": 99}'}
    assert "statusCode" in (await api.http.get(f"{one}/http-invoke")).json()["error"]
    guest.answer = lambda _request: {"status": "error", "exit_code": 2, "error": "no", "stderr": "e"}
    failed = await api.http.get(f"{one}/http-invoke")
    assert failed.status_code == 500
    assert {"error": "no", "exit_code": 2, "stderr": "e"}.items() <= failed.json().items()


def framed(*frames: bytes) -> bytes:
    return b"".join(struct.pack("!I", len(each)) + each for each in frames)


HEAD, LAST = b'\1{"statusCode": 200, "headers": [["content-length", "2"]]}', b'{"status": "success", "exit_code": 0}'


@pytest.mark.parametrize(
    ("frames", "status"),
    [
        ((HEAD, b"\0a", b"\0", b"\0b", LAST), 200),
        ((b"\0a", LAST), 500),
        ((b"\1{}", LAST), 500),
        ((b"\1[", LAST), 500),
        ((b'\1{"statusCode": 200, "headers": [["content-length", "x"]]}', LAST), 500),
        ((b'\1{"statusCode": 200, "headers": [["a b", "x"]]}', LAST), 500),
        ((b"\0" * 300_000, LAST), 500),
        ((HEAD, HEAD, LAST), None),
        ((HEAD, b"\0a", LAST), None),
        ((HEAD, b"\0abc", LAST), None),
        ((HEAD, b"\0ab", b"x"), None),
        ((HEAD, b"\0ab"), None),
    ],
)
async def test_answers_in_pieces(
    api: Api, guest: ScriptedFunctions, frames: tuple[bytes, ...], status: int | None
) -> None:
    """None: the client sees that it is cut."""
    guest.report = {"kind": "wsgi"}
    one = f"{FUNCTIONS}/{(await make(api, public=True))['id']}"
    guest.answer = lambda _request: framed(*frames)
    if status is None:
        with pytest.raises(httpx.RemoteProtocolError):
            await api.http.get(f"{one}/http-invoke")
    else:
        answer = await api.http.get(f"{one}/http-invoke")
        assert answer.status_code == status and (status != 200 or answer.content == b"ab")
    await settled(api)
    assert guest.asked[-1]["stream"] is True
    (run,) = (await api.http.get(f"{one}/runs")).json()
    assert run["status"] in (("success",) if status == 200 else ("error", "success"))
    assert (await api.http.post(f"{one}/invoke")).json()["status"] == "error", "no pieces are for an invoke"
    assert "stream" not in guest.asked[-1]


async def test_scripts_over_http(api: Api, guest: ScriptedFunctions) -> None:
    guest.report = {"kind": "script"}
    one = f"{FUNCTIONS}/{(await make(api, public=True))['id']}"
    for printed, kind in {'{"a": 1}': "application/json", "hello": "text/plain; charset=utf-8"}.items():
        guest.answer = lambda _request, printed=printed: {"status": "success", "exit_code": 0, "body": printed}  # type: ignore[misc]
        answer = await api.http.post(f"{one}/http-invoke", content=b"in")
        assert (answer.text, answer.headers["content-type"]) == (printed, kind)
    assert guest.asked[-1]["body"] == "in"


async def test_the_next_server_ends_what_was_left(api: Api, guest: ScriptedFunctions, tmp_path: Path) -> None:
    made = await make(api)
    plane = plane_of(api)
    run = RunRecord("r1", "default", made["id"], RunStatus.RUNNING, 1.0)
    async with plane.store.write() as connection:
        await table.add_run(connection, run)
    (tmp_path / "functions" / "gone").mkdir()
    await api.http.post(f"{FUNCTIONS}/{made['id']}/invoke", json={"async": True})
    async with anyio.create_task_group() as tasks:
        again = Functions(plane, tasks, tmp_path / "functions")
        await again.recover()
        assert (await again.wait_ended("r1")).error == "the server ended during the run"
        assert not (tmp_path / "functions" / "gone").exists()
        assert again.get(Caller.server("default"), made["id"]).serving is not None
        await settled(api)
    async with plane.store.write() as connection:
        await table.change(connection, made["id"], state=FunctionState.DELETING)
    async with anyio.create_task_group() as tasks:
        again = Functions(plane, tasks, tmp_path / "functions")
        await again.recover()
        assert again.list(Caller.server("default")) == []
    assert await plane.snapshots.all() == []
    async with plane.store.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM functions"))).scalar_one() == 0


async def test_a_deletion_that_fails_is_tried_again(api: Api, guest: ScriptedFunctions) -> None:
    made = await make(api)
    api.engine.refusals["delete_snapshot"] = ServerError("not now")
    refusal(await api.http.delete(f"{FUNCTIONS}/{made['id']}"), 500)
    refusal(await api.http.get(f"{FUNCTIONS}/{made['id']}"), 404)
    del api.engine.refusals["delete_snapshot"]
    with anyio.fail_after(60):
        for _ in range(6000):
            if functions_of(api)._records.get(made["id"]) is None:
                return
            await anyio.sleep(0.01)


async def test_webhooks_are_told_of_runs_that_have_ended(api: Api, guest: ScriptedFunctions) -> None:
    made = await make(api)
    with receiving() as receiver:
        await api.http.post("/v1/webhooks", json={"url": receiver.url, "events": ["run.*"]})
        run = (await api.http.post(f"{FUNCTIONS}/{made['id']}/invoke", json={})).json()
        (message,) = [json.loads(each.body) for each in await receiver.until(1)]
    assert (message["type"], message["data"]["id"], message["data"]["status"]) == ("run.ended", run["id"], "success")


async def test_webhooks_are_told_of_deploys_that_have_ended(api: Api, guest: ScriptedFunctions) -> None:
    with receiving() as receiver:
        await api.http.post("/v1/webhooks", json={"url": receiver.url, "events": ["deploy.ended"]})
        made = await make(api)
        guest.report = {"error": "No module named 'nothere'"}
        refusal(await api.http.post(f"{FUNCTIONS}/{made['id']}/deploy", content=SOURCE), 400)
        first, second = [json.loads(each.body)["data"] for each in await receiver.until(2)]
    expected = {"id": made["id"], "name": "f", "status": "success", "version": 1, "error": None}
    assert first == expected
    assert (second["status"], second["version"]) == ("error", None) and "nothere" in second["error"]


async def test_the_machine_of_a_failed_run_is_kept(api: Api, guest: ScriptedFunctions) -> None:
    one = f"{FUNCTIONS}/{(await make(api))['id']}"
    keep = {"keep_seconds": 600}
    good = (await api.http.post(f"{one}/invoke", json=keep)).json()
    assert good["status"] == "success" and "kept_until" not in good and guest.asked[-1]["keep"] is True
    guest.answer = lambda _: {"status": "error", "exit_code": 1, "error": "E", "stdout": "", "stderr": ""}
    assert "kept_until" not in (await api.http.post(f"{one}/invoke")).json() and guest.asked[-1]["keep"] is False
    run = (await api.http.post(f"{one}/invoke", json=keep)).json()
    assert run["status"] == "error" and run["kept_until"] > run["ended_at"]
    assert (await api.http.get(f"{one}/runs/{run['id']}")).json() == run
    await reached(lambda: len(plane_of(api).registry.all()) == 1)
    (sandbox,) = (await api.http.get("/v1/sandboxes")).json()
    assert (sandbox["id"], sandbox["status"], sandbox["ttl_seconds"]) == (run["sandbox_id"], "hibernated", 600)
    assert sandbox["metadata"]["run"] == run["id"]
    assert (await api.http.delete(one)).status_code == 204
    assert (await api.http.delete(f"/v1/sandboxes/{run['sandbox_id']}")).status_code == 204, "it is the workspace's"


async def test_how_many_machines_are_kept_is_limited(serve: Serve, tmp_path: Path) -> None:
    settings = {"functions_dir": str(tmp_path / "functions"), "max_kept_runs": 1}
    async with serve(ScriptedEngine(), settings=settings) as api:
        guest = ScriptedFunctions(api.engine)
        one = f"{FUNCTIONS}/{(await make(api))['id']}"
        for seconds in (-1, 86401):
            refused = refusal(await api.http.post(f"{one}/invoke", json={"keep_seconds": seconds}), 400)
            assert refused["field"] == "keep_seconds"
        guest.answer = lambda _: None
        guest.may_answer = anyio.Event()
        runs = list[dict[str, Any]]()

        async def invoke() -> None:
            runs.append((await api.http.post(f"{one}/invoke", json={"keep_seconds": 60})).json())

        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(invoke)
            await reached(lambda: len(guest.asked) == 2)
            guest.may_answer.set()
        assert sorted("kept_until" in run for run in runs) == [False, True]
        before = len(guest.asked)
        refused = refusal(await api.http.post(f"{one}/invoke", json={"keep_seconds": 60}), 429)
        assert refused["code"] == "quota_exceeded" and "PANDASTACK_MAX_KEPT_RUNS" in refused["hint"]
        assert len(guest.asked) == before
        assert (await api.http.post(f"{one}/invoke")).json()["status"] == "error"
        await reached(lambda: len(plane_of(api).registry.all()) == 1)


FAILED = {"status": "error", "exit_code": 1, "error": "E: x", "stdout": "", "stderr": ""}


async def started(api: Api, one: str, **wanted: Any) -> dict[str, Any]:
    answer = await api.http.post(f"{one}/invoke", json={"async": True, **wanted})
    assert answer.status_code == 202, answer.text
    run: dict[str, Any] = answer.json()
    return run


async def ended(api: Api, one: str, run: dict[str, Any]) -> dict[str, Any]:
    await functions_of(api).wait_ended(run["id"])
    value: dict[str, Any] = (await api.http.get(f"{one}/runs/{run['id']}")).json()
    return value


async def test_a_run_that_fails_is_tried_again_if_it_may_be(api: Api, guest: ScriptedFunctions) -> None:
    one = f"{FUNCTIONS}/{(await make(api))['id']}"
    answers = [FAILED, {"status": "timeout"}, {"status": "success", "exit_code": 0, "result": "7"}]
    guest.answer = lambda _request: answers.pop(0)
    run = await ended(api, one, await started(api, one, input={"n": 1}, retries=5))
    assert (run["status"], run["result"], run["attempt"], run["retries"]) == ("success", 7, 3, 5)
    assert [(each["attempt"], each["status"], each["error"]) for each in run["attempts"]] == [
        (1, "error", "E: x"),
        (2, "timeout", "timeout after 60 s"),
    ]
    assert "next_attempt_at" not in run and len({each["sandbox_id"] for each in (run, *run["attempts"])}) == 3
    assert [(each["event"], each["context"]["attempt"]) for each in guest.asked] == [({"n": 1}, n) for n in (1, 2, 3)]
    guest.answer = lambda _request: FAILED
    for retries in (0, 1):
        run = await ended(api, one, await started(api, one, retries=retries))
        assert (run["status"], run["attempt"], len(run.get("attempts", ()))) == ("error", 1 + retries, retries)
    async with plane_of(api).store.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM function_run_events"))).scalar_one() == 0
    await settled(api)


async def test_a_host_without_room_is_tried_again(api: Api, guest: ScriptedFunctions) -> None:
    one = f"{FUNCTIONS}/{(await make(api))['id']}"
    api.engine.refusals["create"] = CapacityError("no room")
    run = await started(api, one, retries=5)
    with anyio.fail_after(30):
        while "attempts" not in (await api.http.get(f"{one}/runs/{run['id']}")).json():  # noqa: ASYNC110  over HTTP
            await anyio.sleep(0.001)
    del api.engine.refusals["create"]
    run = await ended(api, one, run)
    assert (run["status"], run["attempts"][0]["error"]) == ("success", "no room") and run["attempt"] > 1


async def test_a_run_that_waits_takes_no_place_and_ends_with_its_function(serve: Serve, tmp_path: Path) -> None:
    settings = {"functions_dir": str(tmp_path / "functions"), "function_retry_seconds": 3600.0}
    async with serve(ScriptedEngine(), settings=settings) as api:
        guest = ScriptedFunctions(api.engine)
        one = f"{FUNCTIONS}/{(await make(api, concurrency=1))['id']}"
        guest.answer = lambda _request: FAILED
        run = await started(api, one, retries=1)
        await reached(lambda: functions_of(api)._runs._calls[run["id"]].is_waiting)
        seen = (await api.http.get(f"{one}/runs/{run['id']}")).json()
        assert (seen["status"], seen["attempt"]) == ("running", 1) and seen["next_attempt_at"] > seen["started_at"]
        assert (await api.http.post(f"{one}/invoke")).status_code == 200
        assert (await api.http.delete(one)).status_code == 204
        await settled(api)


async def test_the_next_server_tries_again_what_may_be(api: Api, guest: ScriptedFunctions, tmp_path: Path) -> None:
    made, plane = await make(api), plane_of(api)
    left = RunRecord("r1", "default", made["id"], RunStatus.RUNNING, 1.0, version=1, sandbox_id="s")
    failed = [{"attempt": 1, "status": "error", "error": "E", "sandbox_id": "s", "ended_at": 1.0}]
    runs = [
        left,
        replace(left, id="r2", retries=1),
        replace(left, id="r3", retries=1, attempts=failed, next_attempt_at=2.0),
        replace(left, id="r4", retries=1, attempt=2, attempts=failed),
        replace(left, id="r5", retries=1, version=9),
    ]
    async with plane.store.write() as connection:
        for each in runs:
            await table.add_run(connection, each)
            await table.add_event(connection, each.id, '{"of": "' + each.id + '"}')
    async with anyio.create_task_group() as tasks:
        again = Functions(plane, tasks, tmp_path / "functions")
        await again.recover()
        found = {each.id: await again.wait_ended(each.id) for each in runs}
        told = {each.id: (str(each.status), each.attempt, len(each.attempts or ())) for each in found.values()}
        assert told == {
            "r1": ("error", 1, 0),
            "r2": ("success", 2, 1),
            "r3": ("success", 2, 1),
            "r4": ("error", 2, 1),
            "r5": ("error", 1, 0),
        }
        assert (found["r2"].attempts or [{}])[0]["error"] == "the server ended during the run" == found["r4"].error
        assert json.loads(found["r3"].result or "")["event"] == {"of": "r3"}
        await settled(api)


async def test_a_callback_gets_the_run(api: Api, guest: ScriptedFunctions) -> None:
    made = await make(api)
    one = f"{FUNCTIONS}/{made['id']}"
    secret = (await api.http.get(f"{one}/callback-secret")).json()["secret"]
    with receiving() as receiver, receiving() as other:
        receiver.answers = [500, 410]
        guest.answer = lambda _request: {"status": "success", "exit_code": 0, "result": '{"n": 1}'}
        for url in (receiver.url, f"{other.url}?run=1"):
            run = await ended(api, one, await started(api, one, callback=url))
            assert run["callback"] == url
        (first, second, *_), (third,) = await receiver.until(2), await other.until(1)
        assert first.id == second.id and third.path == "/hook?run=1"
        message = Webhook(secret).verify(third.body, third.headers)
        assert (message["type"], message["data"]["id"], message["data"]["result"]) == ("run.ended", run["id"], {"n": 1})
        assert (message["data"]["attempt"], message["data"]["status"]) == (1, "success")
        run = await ended(api, one, await started(api, one, callback=receiver.url))
        assert json.loads((await receiver.until(3))[2].body)["data"]["id"] == run["id"], "one answer is not all"
    assert (await api.http.get("/v1/webhooks")).json() == {"webhooks": []}
    refusal(await api.http.get(f"/v1/webhooks/{made['id']}"), 404)
    refusal(await api.http.get(f"{one}/callback-secret", headers=await api.another("elsewhere")), 404)
    assert (await api.http.delete(one)).status_code == 204
    assert plane_of(api).outbox.all() == [] == await plane_of(api).secrets.owned("default", "webhooks")


async def test_what_is_refused_of_asynchronous_calls(api: Api, guest: ScriptedFunctions) -> None:
    one = f"{FUNCTIONS}/{(await make(api))['id']}"
    for field, body in (
        ("retries", {"retries": 1}),
        ("callback", {"callback": "https://a.test/"}),
        ("retries", {"async": True, "retries": 6}),
        ("callback", {"async": True, "callback": "ftp://a.test/"}),
        ("callback", {"async": True, "callback": "https://10.0.0.1/"}),
        ("callback", {"async": True, "callback": "https://u:p@a.test/"}),
    ):
        assert refusal(await api.http.post(f"{one}/invoke", json=body), 400)["field"] == field
    assert (await api.http.get(f"{one}/runs")).json() == [] == guest.asked


async def test_a_machine_waits_for_the_next_run(api: Api, guest: ScriptedFunctions) -> None:
    def hints() -> list[str]:
        return [each for each in api.engine.calls if each.startswith("expect ")]

    made = await make(api)
    one = f"{FUNCTIONS}/{made['id']}"
    (first,) = await plane_of(api).snapshots.all()
    await reached(lambda: hints() == [f"expect {first.id} 1 600"])
    assert (await api.http.post(f"{one}/invoke", json={})).json()["start"] == "restored"
    api.engine.phases = {"resume": 1.0}
    assert (await api.http.post(f"{one}/invoke", json={})).json()["start"] == "waiting"
    assert (await api.http.get(f"{one}/metrics")).json()["cold_start_rate"] == 0.5
    assert (await api.http.post(f"{one}/deploy", content=SOURCE)).status_code == 200
    second = (await plane_of(api).snapshots.all())[1]
    await reached(lambda: hints() == [f"expect {first.id} 1 600", f"expect {second.id} 1 600"])


async def test_no_machine_waits_if_the_operator_says_so(serve: Serve, tmp_path: Path) -> None:
    settings = {"functions_dir": str(tmp_path / "functions"), "function_warm_seconds": 0}
    async with serve(ScriptedEngine(), settings=settings) as api:
        ScriptedFunctions(api.engine)
        made = await make(api)
        assert (await api.http.post(f"{FUNCTIONS}/{made['id']}/invoke", json={})).json()["status"] == "success"
        await settled(api)
        assert not [each for each in api.engine.calls if each.startswith("expect ")]


def test_which_versions_make_room() -> None:
    versions = [(5, 40), (4, 40), (3, 40), (2, 40)]
    assert plan_pruned(versions, {5}, 3, 1000) == {2}
    assert plan_pruned(versions, {5}, 3, 80) == {3, 2}
    assert plan_pruned(versions, {5}, 3, 0) == {4, 3, 2}, "the one that serves stays"
    assert plan_pruned(versions, {2}, 3, 100) == {3}, "also after a rollback"
    assert plan_pruned(versions, {5, 2}, 1, 0) == {4, 3}, "so does one with an alias"
    assert plan_pruned([], {0}, 3, 0) == set()


async def test_versions_beyond_the_budget_make_room(serve: Serve, tmp_path: Path) -> None:
    settings = {"functions_dir": str(tmp_path / "functions"), "kept_function_mb": 0}
    async with serve(ScriptedEngine(), settings=settings) as api:
        ScriptedFunctions(api.engine)
        one = f"{FUNCTIONS}/{(await make(api))['id']}"
        assert (await api.http.post(f"{one}/deploy", content=SOURCE)).json()["version"] == 2
        assert [each["version"] for each in (await api.http.get(f"{one}/versions")).json()] == [2]
        assert len(await plane_of(api).snapshots.all()) == 1


async def test_copies_that_draw_the_same_refuse_a_version(api: Api, guest: ScriptedFunctions) -> None:
    made = await make(api)
    one = f"{FUNCTIONS}/{made['id']}"
    guest.check = lambda _request: {"draws": {"random": "7", "uuid.uuid4": "8"}, "values": {}}
    refused = refusal(await api.http.post(f"{one}/deploy", content=SOURCE), 400)
    assert refused["detail"] == {"generators": ["random", "uuid.uuid4"]} and refused["field"] == "code"
    assert (await api.http.get(one)).json() == made
    assert len(await plane_of(api).snapshots.all()) == 1, "the refused version leaves nothing"
    refusal(await api.http.post(FUNCTIONS, json={"name": "g", "runtime": "python", "code": CODE}), 400)
    assert (await api.http.get(f"{FUNCTIONS}?name=g")).json() == []
    assert not guest.asked, "no handler ran"
    await settled(api)


@pytest.mark.parametrize("answer", [None, b"\0\0\0\x02[]", b"\xff\xff\xff\xff", {"draws": {}, "values": {}}])
async def test_copies_that_do_not_answer_refuse_a_version(api: Api, guest: ScriptedFunctions, answer: Any) -> None:
    guest.check = lambda _request: answer
    body = refusal(await api.http.post(FUNCTIONS, json={"name": "f", "runtime": "python", "code": CODE}), 400)
    assert "cop" in body["error"]
    assert await plane_of(api).snapshots.all() == []
    await settled(api)


async def test_a_credential_in_the_memory_refuses_a_version(api: Api, guest: ScriptedFunctions) -> None:
    secret = {"name": "API_KEY", "value": "a secret of the workspace", "hosts": ["api.example.org"]}
    assert (await api.http.post("/v1/secrets", json=secret)).status_code == 201
    made = await make(api, env={"DB_PASSWORD": "in the variables", "MODE": "production", "SHORT": "abc"})
    one = f"{FUNCTIONS}/{made['id']}"
    source = b"key = 'a secret of the workspace'\n" + SOURCE
    api.engine.memory = b"... a secret of the workspace ... in the variables ... abc"
    refused = refusal(await api.http.post(f"{one}/deploy", content=source), 400)
    assert refused["detail"]["found"] == [
        {"name": "API_KEY", "source": "secret", "file": "handler.py"},
        {"name": "DB_PASSWORD", "source": "env", "file": None},
    ]
    assert "a secret of the workspace" not in json.dumps(refused)
    assert (await api.http.get(one)).json() == made
    api.engine.memory, api.engine.inherited = b"", b"a secret of the workspace"
    assert (await api.http.post(f"{one}/deploy", content=SOURCE)).json()["warnings"] == [], "the template's own words"
    api.engine.memory = b"production"
    warned = (await api.http.post(f"{one}/deploy", content=SOURCE)).json()
    assert warned["warnings"] == (await api.http.get(f"{one}/versions")).json()[0]["warnings"]
    assert len(warned["warnings"]) == 1 and "MODE" in warned["warnings"][0]
    api.engine.refusals["search"] = ServerError("not now")
    refusal(await api.http.post(f"{one}/deploy", content=SOURCE), 500)
    assert (await api.http.get(one)).json()["version"] == warned["version"], "what cannot be checked does not serve"


async def test_warnings_of_a_version(api: Api, guest: ScriptedFunctions) -> None:
    guest.report = {"kind": "handler", "sockets": ["tcp to 192.0.2.1:5432", "\x1b[2J"]}
    guest.check = lambda request: {**distinct(request), "values": {"handler.ID": "same"}}
    made = await make(api)
    assert [each.split(":")[0] for each in made["warnings"]] == [
        "handler.ID looks unique, and is the same in every run",
        "a connection was open at the capture, and is dead in every run",
    ]


async def test_copies_wait_for_room_and_reach_nothing(api: Api, guest: ScriptedFunctions) -> None:
    tried: list[str] = []

    async def before(action: str, sandbox_id: str) -> None:
        if action == "create":
            tried.append(sandbox_id)
            if len(tried) in (2, 3):
                raise CapacityError("full")

    api.engine.before = before
    made = await make(api)
    assert made["version"] == 1 and len(tried) == 5 and len(set(tried)) == 3
    policies = [api.engine.networks[each] for each in dict.fromkeys(tried)]
    assert [each.egress.value for each in policies] == ["allow", "none", "none"]


BOUND = {"name": "API_KEY", "value": "a secret of the workspace", "hosts": ["api.example.org"]}
PLAIN = {"name": "PLAIN", "value": "a value for commands"}


async def test_runs_get_secrets_by_name_and_deploys_get_none(api: Api, guest: ScriptedFunctions) -> None:
    for each in (BOUND, PLAIN):
        await api.http.post("/v1/secrets", json=each)
    placeholder = (await api.http.get("/v1/secrets/API_KEY")).json()["placeholder"]
    made = await make(api, secrets=["API_KEY", "PLAIN", "API_KEY"], env={"PLAIN": "its own"})
    assert (made["secrets"], made["network"]) == (["API_KEY", "PLAIN"], None)
    assert len(api.engine.networks) == 3 and not any(each.secrets for each in api.engine.networks.values())
    assert not api.engine.secrets, "neither the deploy nor the copies that are checked"
    one = f"{FUNCTIONS}/{made['id']}"
    run = (await api.http.post(f"{one}/invoke", json={})).json()
    env = run["result"]["env"]
    assert env["API_KEY"] == placeholder and env["PLAIN"] == "its own", "a variable of the function goes first"
    assert env["NODE_EXTRA_CA_CERTS"] and env["REQUESTS_CA_BUNDLE"]
    assert api.engine.networks[run["sandbox_id"]].secrets == ("API_KEY", "PLAIN")
    assert [each.value for each in api.engine.secrets[run["sandbox_id"]].bindings] == [BOUND["value"]]
    assert BOUND["value"] not in json.dumps(guest.asked)
    await api.http.patch(one, json={"secrets": ["PLAIN"], "env": {}})
    env = (await api.http.post(f"{one}/invoke", json={})).json()["result"]["env"]
    assert env == {"PLAIN": PLAIN["value"]}, "from the next run on; without a bound one nobody meets the broker"
    await api.http.delete("/v1/secrets/PLAIN")
    gone = (await api.http.post(f"{one}/invoke", json={})).json()
    assert gone["status"] == "error" and "unknown secret 'PLAIN'" in gone["error"]
    await api.http.patch(one, json={"secrets": []})
    assert (await api.http.post(f"{one}/invoke", json={})).json()["result"]["env"] == {}


async def test_secrets_and_networks_that_cannot_be(api: Api, guest: ScriptedFunctions) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "secrets": {"secrets": ["NOT_THERE"]},
        "network.secrets": {"network": {"secrets": ["NOT_THERE"]}},
        "network.egress": {"network": "everything"},
        "network.egress.allow[0]": {"network": {"egress": {"allow": ["10.0.0.1"]}}},
        "network.services": {"network": {"services": ["sandbox:0b5f1c8e-7b1e-4a57-9d8b-0d7a5c1f2e33:80"]}},
    }
    made = await make(api)
    for field, body in wrong.items():
        given = {"name": "g", "runtime": "python", "code": CODE, **body}
        for answer in (
            await api.http.post(FUNCTIONS, json=given),
            await api.http.patch(f"{FUNCTIONS}/{made['id']}", json=body),
        ):
            assert str(refusal(answer, 400)["field"]).startswith(field), body
    assert refusal(await api.http.post(FUNCTIONS, json={**given, "secrets": ["A"] * 65}), 400)["field"] == "secrets"
    assert (await api.http.get(f"{FUNCTIONS}?name=g")).json() == []
    assert (await api.http.get(f"{FUNCTIONS}/{made['id']}")).json() == made


async def test_the_network_of_a_function_holds_from_the_import_on(api: Api, guest: ScriptedFunctions) -> None:
    seen: list[tuple[str, str]] = []

    async def before(action: str, sandbox_id: str) -> None:
        if action in ("set_network", "snapshot"):
            ran = "import" if any("setsid" in each for each in guest.commands) else ""
            ran = ran or ("install" if any("pip" in each for each in guest.commands) else "")
            seen.append((action, ran))

    api.engine.before = before
    made = await make(api, network={"egress": {"allow": ["api.example.org"]}}, code=None)
    one = f"{FUNCTIONS}/{made['id']}"
    bundle = archive({"handler.py": SOURCE, "requirements.txt": b"something"})
    assert (await api.http.post(f"{one}/deploy", content=bundle)).status_code == 200
    assert seen == [("set_network", "install"), ("snapshot", "import")]
    run = (await api.http.post(f"{one}/invoke", json={})).json()
    (rule,) = api.engine.networks[run["sandbox_id"]].allow
    assert rule.target == "api.example.org"
    await api.http.patch(one, json={"network": "none"})
    run = (await api.http.post(f"{one}/invoke", json={})).json()
    assert api.engine.networks[run["sandbox_id"]].egress.value == "none"


async def test_secrets_of_a_template_are_for_runs_too(api: Api, guest: ScriptedFunctions) -> None:
    for each in (BOUND, PLAIN):
        await api.http.post("/v1/secrets", json=each)
    api.engine.template_policy = NetworkPolicy(Egress.DENY, secrets=("PLAIN",))
    made = await make(api, secrets=["API_KEY"])
    held = [each for each in api.engine.networks if api.engine.networks[each].secrets]
    assert held == [] and all(not each.env for each in api.engine.secrets.values()), "before any command ran"
    run = (await api.http.post(f"{FUNCTIONS}/{made['id']}/invoke", json={})).json()
    policy = api.engine.networks[run["sandbox_id"]]
    assert (policy.egress, policy.secrets) == (Egress.DENY, ("PLAIN", "API_KEY"))
    assert run["result"]["env"]["PLAIN"] == PLAIN["value"]


def test_the_policy_of_a_run() -> None:
    deny = {"egress": "deny", "secrets": ["A"]}
    assert run_network(None, None, ()) is None
    assert run_network(None, {"egress": "deny", "secrets": []}, ()) is None, "the template's, as it is by then"
    assert run_network(None, deny, ("B", "A")) == {"egress": "deny", "secrets": ["A", "B"]}
    assert run_network(None, None, ("B",)) == {"egress": "deny", "secrets": ["B"]}, "closed when it is not known"
    assert run_network({"egress": "none"}, deny, ()) == {"egress": "none", "secrets": []}
    assert bare({**deny, "services": [], "limits": {}}) == NetworkPolicy(Egress.DENY)


async def test_each_attempt_is_as_the_call_has_chosen(api: Api, guest: ScriptedFunctions) -> None:
    await api.http.post("/v1/secrets", json=PLAIN)
    one = f"{FUNCTIONS}/{(await make(api, secrets=['PLAIN']))['id']}"
    assert (await api.http.post(f"{one}/deploy", content=SOURCE)).status_code == 200
    guest.answer = lambda _request: FAILED
    run = await ended(api, one, await started(api, one, version=1, retries=1, keep_seconds=60))
    assert (run["status"], run["version"], run["attempt"]) == ("error", 1, 2) and run["kept_until"] > run["ended_at"]
    asked = [(each["context"]["version"], each["env"], each["keep"]) for each in guest.asked]
    assert asked == [(1, {"PLAIN": PLAIN["value"]}, True)] * 2
    await reached(lambda: [each.id for each in plane_of(api).registry.all()] == [run["sandbox_id"]])


async def test_aliases_keep_versions(api: Api, guest: ScriptedFunctions) -> None:
    one = f"{FUNCTIONS}/{(await make(api))['id']}"
    made = (await api.http.put(f"{one}/aliases/live", json={"version": 1})).json()
    assert (made["name"], made["version"]) == ("live", 1)
    for _ in range(4):
        assert (await api.http.post(f"{one}/deploy", content=SOURCE)).status_code == 200
    assert [each["version"] for each in (await api.http.get(f"{one}/versions")).json()] == [5, 4, 3, 1]
    for body, version in (({}, 5), ({"alias": "live"}, 1), ({"version": 3}, 3)):
        assert (await api.http.post(f"{one}/invoke", json=body)).json()["version"] == version
    assert (await api.http.post(f"{one}/invoke", json={"alias": "live", "async": True})).json()["version"] == 1
    assert (await api.http.post(f"{one}/rollback")).json()["version"] == 4
    assert (await api.http.get(f"{one}/aliases")).json() == [made], "a rollback leaves it"
    moved = (await api.http.put(f"{one}/aliases/live", json={"version": 4})).json()
    assert (moved["version"], moved["created_at"]) == (4, made["created_at"])
    assert (await api.http.get(f"{one}/aliases/live")).json() == moved
    assert (await api.http.post(f"{one}/deploy", content=SOURCE)).status_code == 200
    assert [each["version"] for each in (await api.http.get(f"{one}/versions")).json()] == [6, 5, 4]
    assert (await api.http.delete(f"{one}/aliases/live")).status_code == 204
    assert (await api.http.get(f"{one}/aliases")).json() == []
    await settled(api)


async def test_aliases_that_are_refused(api: Api, guest: ScriptedFunctions) -> None:
    one = f"{FUNCTIONS}/{(await make(api))['id']}"
    assert refusal(await api.http.put(f"{one}/aliases/live", json={"version": 2}), 404)["field"] == "version"
    for name in ("12", "a.b", "-a", "x" * 65):
        assert refusal(await api.http.put(f"{one}/aliases/{name}", json={"version": 1}), 400)["field"] == "name"
    refusal(await api.http.put(f"{one}/aliases/live", json={}), 400)
    assert refusal(await api.http.post(f"{one}/invoke", json={"alias": "live"}), 404)["field"] == "alias"
    assert refusal(await api.http.post(f"{one}/invoke", json={"version": 7}), 404)["field"] == "version"
    await api.http.put(f"{one}/aliases/live", json={"version": 1})
    assert refusal(await api.http.post(f"{one}/invoke", json={"alias": "live", "version": 1}), 400)["field"] == "alias"
    for n in range(15):
        assert (await api.http.put(f"{one}/aliases/a{n}", json={"version": 1})).status_code == 200
    refusal(await api.http.put(f"{one}/aliases/more", json={"version": 1}), 429)
    refusal(await api.http.delete(f"{one}/aliases/more"), 404)
    other = await api.another("elsewhere")
    for method in ("GET", "DELETE"):
        refusal(await api.http.request(method, f"{one}/aliases/live", headers=other), 404)
    refusal(await api.http.put(f"{one}/aliases/live", json={"version": 1}, headers=other), 404)
    refusal(await api.http.get(f"{one}/aliases", headers=other), 404)


async def test_aliases_survive_a_restart_and_go_with_their_function(
    api: Api, guest: ScriptedFunctions, tmp_path: Path
) -> None:
    made = await make(api)
    await api.http.put(f"{FUNCTIONS}/{made['id']}/aliases/live", json={"version": 1})
    plane = plane_of(api)
    async with anyio.create_task_group() as tasks:
        again = Functions(plane, tasks, tmp_path / "functions")
        await again.recover()
        assert again.aliases.get(SERVER, made["id"], "live").version == 1
        await again.delete(SERVER, made["id"])
    async with plane.store.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM function_aliases"))).scalar_one() == 0
