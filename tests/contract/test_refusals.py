"""The engine's contract where no machine is needed, held by the scripted engine and by the real one alike."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import httpx
import pytest

from pandastack.cluster import EngineClient, StreamingASGITransport
from pandastack.cluster.in_process_socket import ASGIApp
from pandastack.contract.builds import BuildOptions
from pandastack.contract.network import CheckDestination
from pandastack.contract.processes import ExecSpec, ProcessSpec, TerminalSize
from pandastack.contract.references import SandboxRef, SnapshotRef, TemplateRef
from pandastack.contract.sandboxes import SandboxSpec
from pandastack.contract.version import HEADER, VERSION
from pandastack.engine.engine import open_engine
from pandastack.engine.http.app import create_engine_app
from pandastack.engine.layout import Layout
from pandastack.engine.settings import Settings
from pandastack.errors import BadRequestError, ForbiddenError, NotFoundError
from pandastack.host import facts
from pandastack.model.network import Egress, NetworkPolicy
from pandastack.services.templates.builds import DockerfileRecipe, recipe_archive
from tests.cluster.scripted_engine import ScriptedEngine

pytestmark = pytest.mark.anyio

HERE, THERE = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
NOT_FOUND, BAD_REQUEST = 404, 400


@pytest.fixture(params=["scripted", "real"])
async def app(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ASGIApp]:
    """An engine that has no templates but those that it is scripted to have, and no sandboxes."""
    if request.param == "scripted":
        yield ScriptedEngine().app
        return
    if facts.program("qemu-system-x86_64") is None:
        pytest.skip("this host has no qemu-system-x86_64")
    async with open_engine(Layout(tmp_path / "data", tmp_path / "cache"), Settings(ready_machines=0)) as engine:
        yield create_engine_app(engine)


@pytest.fixture
async def client(app: ASGIApp) -> AsyncIterator[EngineClient]:
    async with EngineClient.in_process(app) as opened:
        with anyio.fail_after(60):
            yield opened


@pytest.fixture
async def http(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """What the client would never send."""
    headers = {HEADER: VERSION}
    async with httpx.AsyncClient(
        transport=StreamingASGITransport(app), base_url="http://engine", headers=headers
    ) as opened:
        with anyio.fail_after(60):
            yield opened


async def test_an_engine_that_has_nothing(client: EngineClient) -> None:
    health = await client.health()
    assert (health.status, health.sandboxes) == ("ok", 0)
    assert health.vmm and health.isolation and health.accelerator in ("tcg", "kvm")
    assert await client.sandboxes() == ()
    assert await client.snapshots() == ()
    assert all(each.name for each in await client.templates())
    measured = await client.measure([THERE])
    assert measured.frees == {}
    assert 0 < measured.free_bytes <= measured.total_bytes


async def test_builds_that_cannot_be_started(client: EngineClient) -> None:
    """The refusal names the invalid field, and starts no build."""
    with pytest.raises(NotFoundError) as unknown:
        await client.builds.start_shipped(HERE, "no-such")
    assert unknown.value.field == "shipped"
    with pytest.raises(BadRequestError) as broken:
        await client.builds.start(HERE, b"this is no archive")
    assert broken.value.field == "recipe"
    assert await client.builds.list() == ()
    for ask in (client.builds.get, client.builds.cancel):
        with pytest.raises(NotFoundError):
            await ask(THERE)
    with pytest.raises(NotFoundError):
        async with client.builds.events(THERE, follow=True):
            pass
    assert "base" in await client.builds.recipes()


async def test_what_owners_cannot_have(client: EngineClient) -> None:
    """Templates with the names of everybody's, names that are no words, and what is not theirs."""
    base, app = (recipe_archive(DockerfileRecipe(name, "FROM base")) for name in ("base", "app"))
    for options in (BuildOptions(owner="acme"), BuildOptions(owner="acme", replace=False)):
        with pytest.raises(ForbiddenError) as forbidden:
            await client.builds.start(HERE, base, options)
        assert (forbidden.value.field, forbidden.value.status_code) == ("name", 403)
    for owner in ("../x", "a b", "a~b", "x" * 65):
        for ask in (
            client.template("base", owner),
            client.delete_template("base", owner),
            client.builds.start(HERE, app, BuildOptions(owner=owner)),
        ):
            with pytest.raises(BadRequestError) as refused:
                await ask
            assert refused.value.field == "owner"
    assert await client.builds.list() == ()
    for name, owner in (("nope", ""), ("base", "acme")):
        with pytest.raises(NotFoundError):
            await client.delete_template(name, owner)


async def test_events_begin_with_a_sign_of_life(client: EngineClient) -> None:
    events = client.events()
    assert await anext(events) is None
    await events.aclose()


async def nothing() -> AsyncIterator[bytes]:
    yield b"x"


OPERATIONS: dict[str, Callable[[EngineClient], Awaitable[object]]] = {
    "look": lambda client: client.sandbox(HERE),
    "delete": lambda client: client.delete(HERE),
    "pause": lambda client: client.pause(HERE),
    "resume": lambda client: client.resume(HERE),
    "hibernate": lambda client: client.hibernate(HERE),
    "wake": lambda client: client.wake(HERE),
    "snapshot": lambda client: client.snapshot(HERE, THERE),
    "fork": lambda client: client.fork(HERE, [SandboxSpec(THERE)]),
    "rewind": lambda client: client.rewind(HERE, THERE),
    "diff": lambda client: client.diff(SandboxRef(HERE), SandboxRef(THERE), patch=False),
    "console": lambda client: client.console(HERE),
    "follow console": lambda client: client.follow_console(HERE).__aenter__(),
    "exec": lambda client: client.exec(HERE, ExecSpec(cmd="true")).__aenter__(),
    "start": lambda client: client.start_process(HERE, ProcessSpec(cmd="true", id=THERE)),
    "processes": lambda client: client.processes(HERE),
    "process": lambda client: client.process(HERE, THERE),
    "attach": lambda client: client.attach(HERE, THERE, stdout=0, stderr=0, follow=False).__aenter__(),
    "input": lambda client: client.send_input(HERE, THERE, b"x", close=True),
    "signal": lambda client: client.signal(HERE, THERE, 15),
    "resize": lambda client: client.resize(HERE, THERE, TerminalSize(24, 80)),
    "read": lambda client: client.read_file(HERE, "/x").__aenter__(),
    "write": lambda client: client.write_file(HERE, "/x", nothing()),
    "delete file": lambda client: client.delete_file(HERE, "/x"),
    "list": lambda client: client.directory(HERE, "/"),
    "stat": lambda client: client.stat(HERE, "/x"),
    "network": lambda client: client.networks.get(HERE),
    "set network": lambda client: client.networks.set(HERE, NetworkPolicy(Egress.NONE)),
    "check destination": lambda client: client.networks.check(HERE, CheckDestination("a.example", 443)),
    "egress log": lambda client: client.networks.log(HERE),
    "follow egress log": lambda client: client.networks.follow_log(HERE).__aenter__(),
    "tunnel": lambda client: client.tunnel(HERE, path="/run/socket").__aenter__(),
    "listen": lambda client: client.listen(HERE, port=80).__aenter__(),
}


async def test_a_sandbox_that_is_not_there_is_not_found(client: EngineClient) -> None:
    for name, operation in OPERATIONS.items():
        with pytest.raises(NotFoundError, match="not found"):
            await operation(client)
            pytest.fail(f"{name} found a sandbox")


async def test_what_a_sandbox_cannot_be_made_of_is_named(client: EngineClient) -> None:
    for start_from, field in ((TemplateRef("nope"), "template"), (SnapshotRef(THERE), "snapshot")):
        with pytest.raises(NotFoundError) as refused:
            await client.create(SandboxSpec(HERE), start_from)
        assert refused.value.field == field
        with pytest.raises(NotFoundError) as refused:
            await client.diff(start_from, start_from, patch=False)
        assert refused.value.field == field
    with pytest.raises(NotFoundError) as refused:
        await client.template("nope")
    assert refused.value.field == "template"
    with pytest.raises(NotFoundError) as refused:
        await client.delete_snapshot(THERE)
    assert refused.value.field == "snapshot"
    with pytest.raises(NotFoundError) as refused:
        await client.expect_creates(THERE, 1, 60)
    assert refused.value.field == "snapshot"
    with pytest.raises(NotFoundError) as refused:
        await client.search_memory(THERE, [b"something"])
    assert refused.value.field == "snapshot"
    assert await client.sandboxes() == ()


SPEC = {"id": HERE}
BASE = {"kind": "template", "name": "base"}
CHILD = {"id": THERE}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/sandboxes", {}, "spec"),
        ("/sandboxes", {"spec": SPEC}, "start_from"),
        ("/sandboxes", {"spec": {"id": "../x"}, "start_from": BASE}, "spec.id"),
        ("/sandboxes", {"spec": {**SPEC, "env": {"A": 1}}, "start_from": BASE}, "spec.env.A"),
        ("/sandboxes", {"spec": SPEC, "start_from": {"kind": "snapshot", "id": "../x"}}, "start_from.id"),
        ("/sandboxes", {"spec": SPEC, "start_from": {"kind": "disk"}}, "start_from.kind"),
        ("/sandboxes", {"spec": SPEC, "start_from": BASE, "later": 1}, "later"),
        ("/sandboxes", {"spec": SPEC, "start_from": BASE, "network": {"egress": "all"}}, "network.egress"),
        ("/sandboxes", {"spec": SPEC, "start_from": BASE, "network": {"allow": [{"target": "A;"}]}}, "network"),
        (f"/sandboxes/{HERE}/network/check", {"host": "a.example", "port": 0}, "port"),
        ("/diff", {"before": BASE}, "after"),
        ("/snapshots/measure", {"ids": ["../x"]}, "ids[0]"),
        (f"/snapshots/{HERE}/expect", {"count": -1, "seconds": 60}, "count"),
        (f"/snapshots/{HERE}/expect", {"count": 1, "seconds": 0}, "seconds"),
        (f"/snapshots/{HERE}/search", {"values": ["c2hvcnQ="]}, "values[0]"),
        (f"/snapshots/{HERE}/search", {"values": ["bGluZQpsaW5l"]}, "values[0]"),
        ("/snapshots/x/search", {"values": []}, "id"),
        ("/snapshots/x/expect", {"count": 1, "seconds": 60}, "id"),
        (f"/sandboxes/{HERE}/snapshots", {"id": 7}, "id"),
        (f"/sandboxes/{HERE}/rewind", {}, "snapshot"),
        (f"/sandboxes/{HERE}/fork", {"children": []}, "children"),
        (f"/sandboxes/{HERE}/fork", {"children": [CHILD, CHILD]}, "children"),
        (f"/sandboxes/{HERE}/exec", {"cmd": ""}, "cmd"),
        (f"/sandboxes/{HERE}/exec", {"cmd": "true", "timeout_seconds": 0}, "timeout_seconds"),
        (f"/sandboxes/{HERE}/exec", {"cmd": "true", "stdin": "no base64!"}, "stdin"),
    ],
)
async def test_a_request_that_is_malformed_names_the_field(
    http: httpx.AsyncClient, path: str, body: dict[str, object], field: str
) -> None:
    answer = await http.post(path, json=body)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (BAD_REQUEST, "bad_request", field)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 10_000])
async def test_what_is_no_message_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await http.post("/sandboxes", content=body)
    assert (answer.status_code, answer.json()["code"]) == (BAD_REQUEST, "bad_request")


async def test_the_name_of_a_snapshot_leads_nowhere_else(http: httpx.AsyncClient) -> None:
    for name in ("x", "..", "%2e%2e", HERE.upper() + "%00"):
        assert (await http.delete(f"/snapshots/{name}")).status_code in (BAD_REQUEST, NOT_FOUND)


@pytest.mark.parametrize("version", ["0", ""])
async def test_another_version_is_refused_with_both_named(http: httpx.AsyncClient, version: str) -> None:
    body = {"spec": SPEC, "start_from": BASE}
    answer = await http.post("/sandboxes", json=body, headers={HEADER: version})
    assert (answer.status_code, answer.headers[HEADER]) == (500, VERSION)
    assert f"'{VERSION}'" in answer.json()["error"] and f"'{version}'" in answer.json()["error"]
    assert (await http.get("/sandboxes")).json() == []


async def test_without_a_version_nothing_is_answered(app: ASGIApp) -> None:
    async with httpx.AsyncClient(transport=StreamingASGITransport(app), base_url="http://engine") as http:
        answer = await http.get("/health")
    assert (answer.status_code, answer.json()["code"]) == (500, "server_error")
    assert "unknown" in answer.json()["error"]


async def test_a_path_that_nobody_serves(http: httpx.AsyncClient) -> None:
    answer = await http.get("/nope")
    assert (answer.status_code, answer.headers[HEADER]) == (NOT_FOUND, VERSION)
    assert json.loads(answer.content)["code"] == "http"
