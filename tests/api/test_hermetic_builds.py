"""Hermetic builds over the API, with a scripted guest: states, failures, limits, and what is left afterwards."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from pandastack.contract.failures import Failure
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDERR, STDOUT, ExecFailed, Output, Record
from pandastack.errors import CapacityError, GuestError
from pandastack.model.caller import Caller
from pandastack.model.network import Egress
from pandastack.products.builds import builds as service
from pandastack.products.builds.spec import planned_build
from pandastack.services import Settings
from tests.cluster.scripted_engine import ScriptedEngine, result
from tests.products.archives import archive, in_pieces, member, of_files
from tests.support.api import Api, Serve, refusal
from tests.support.receiver import receiving

pytestmark = pytest.mark.anyio

SOURCE = of_files({"Makefile": b"all:\n"})
OUTSIDER = Caller("other", "you")


class Guest:
    """Answers the commands of a build. ``makes`` has an archive for each machine; the last is for all later ones."""

    def __init__(self, *makes: bytes) -> None:
        self.makes = list(makes or (of_files({"program": b"binary"}),))
        self.commands: list[str] = []
        self.build: Callable[[], AsyncIterator[Record]] = self.succeed
        self.collected: Record = result()

    async def succeed(self) -> AsyncIterator[Record]:
        yield Output(STDOUT, "compiling: gr\u00fcn\n".encode())
        yield Output(STDERR, b"a warning\n")
        yield result()

    async def __call__(self, spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        self.commands.append(spec.cmd)
        if "exec tar" in spec.cmd:
            yield Output(STDOUT, self.makes.pop(0) if len(self.makes) > 1 else self.makes[0])
            yield result()
        elif "env -i" in spec.cmd:
            async for record in self.build():
                yield record
        elif "cp -a" in spec.cmd:
            if self.collected != result():
                yield Output(STDOUT, b"dist\n")
            yield self.collected
        else:
            yield result()


@pytest.fixture
def guest(api: Api) -> Guest:
    guest = Guest()
    api.engine.exec_records = guest
    return guest


def form(source: bytes = SOURCE, **wanted: Any) -> dict[str, Any]:
    return {
        "data": {"build": json.dumps({"command": "make", **wanted})},
        "files": {"source": ("source.tar", source, "application/x-tar")},
    }


async def start(api: Api, source: bytes = SOURCE, **wanted: Any) -> str:
    response = await api.http.post("/v1/builds", **form(source, **wanted))
    assert response.status_code == 202, response.text
    assert response.json()["status"] == "running"
    return f"/v1/builds/{response.json()['id']}"


async def ended(api: Api, path: str) -> dict[str, Any]:
    with anyio.fail_after(20):
        await api.http.get(f"{path}/logs?follow=1")
        found: dict[str, Any] = (await api.http.get(path)).json()
    assert found["status"] != "running"
    return found


async def built(api: Api, **wanted: Any) -> dict[str, Any]:
    return await ended(api, await start(api, **wanted))


def stored(database_url: str) -> list[str]:
    """What is on disk of builds."""
    directory = Path(database_url.removeprefix("sqlite:///")).with_name("builds")
    return sorted(each.name for each in directory.rglob("*") if each.is_file()) if directory.exists() else []


async def test_a_build_has_artifacts_a_log_and_a_provenance(api: Api, guest: Guest, database_url: str) -> None:
    path = await start(api, artifacts=["dist"], env={"A": "1"})
    found = await ended(api, path)
    assert (found["status"], found["error"], found["reproducible"]) == ("done", None, None)
    assert [(each["path"], each["size"]) for each in found["artifacts"]] == [("program", 6)]
    packed = await api.http.get(f"{path}/artifacts")
    with tarfile.open(fileobj=io.BytesIO(packed.content)) as tar:
        assert [(each.name, each.mtime, each.uid) for each in tar] == [("program", found["source_date_epoch"], 0)]
    statement = (await api.http.get(f"{path}/provenance")).json()
    assert statement["subject"] == [{"name": "program", "digest": {"sha256": found["artifacts"][0]["sha256"]}}]
    assert [(await api.http.get("/v1/builds")).json()] == [{"builds": [found]}]
    assert stored(database_url) == ["artifacts.tar", "log", "provenance.json", "record.json"]


async def test_its_machine_has_no_network_and_is_gone_afterwards(api: Api, guest: Guest) -> None:
    await built(api)
    assert [policy.egress for policy in api.engine.networks.values()] == [Egress.NONE]
    assert api.engine.machines == {}
    assert (await api.http.get("/v1/sandboxes")).json() == []


async def test_the_steps_in_the_machine(api: Api, guest: Guest) -> None:
    await built(api, artifacts=["dist"], source_date_epoch=1_600_000_000)
    unpack, prepare, command, collect, pack = guest.commands
    assert "/build/src" in unpack
    assert "touch -h -d @1600000000" in prepare
    assert command.startswith("date -u -s @1600000000")
    assert "cp -a --parents -- dist /build/out" in collect
    assert "/build/out" in pack


async def test_the_log_is_a_stream_that_ends_with_the_build(api: Api, guest: Guest) -> None:
    path = await start(api)
    lines = (await api.http.get(f"{path}/logs?follow=1")).text.split("\n\n")
    events = [dict(part.split(": ", 1) for part in each.splitlines()) for each in lines if each.startswith("event")]
    text = "".join(json.loads(each["data"])["text"] for each in events[:-1])
    assert text == "compiling: gr\u00fcn\na warning\n"
    assert (events[-1]["event"], json.loads(events[-1]["data"])["status"]) == ("ended", "done")


async def test_verified_builds_agree(api: Api, guest: Guest, database_url: str) -> None:
    found = await built(api, verify=True)
    assert (found["status"], found["reproducible"], found["differences"]) == ("done", True, [])
    assert len(api.engine.networks) == 2
    assert "second.tar" not in stored(database_url)
    first, second = [each for each in guest.commands if "env -i" in each]
    assert first != second
    assert "TZ=UTC" in first
    assert "TZ=UTC" not in second


async def test_verified_builds_differ(api: Api, guest: Guest) -> None:
    guest.makes = [of_files({"a": b"1", "b": b"same"}), of_files({"a": b"2", "b": b"same"})]
    path = await start(api, verify=True)
    found = await ended(api, path)
    assert (found["status"], found["reproducible"], found["error"]) == ("differs", False, None)
    assert found["differences"] == [{"path": "a", "kind": "content", "first_size": 1, "second_size": 1, "offset": 0}]
    archives = [(await api.http.get(f"{path}/artifacts{query}")).content for query in ("", "?second=1")]
    with tarfile.open(fileobj=io.BytesIO(archives[1])) as tar:
        file = tar.extractfile("a")
        assert file is not None
        assert file.read() == b"2"
    assert archives[0] != archives[1]


async def test_a_build_that_agrees_has_no_second_archive(api: Api, guest: Guest) -> None:
    path = await start(api, verify=True)
    await ended(api, path)
    refusal(await api.http.get(f"{path}/artifacts?second=1"), 404)


@pytest.mark.parametrize(
    ("last", "reason", "message"),
    [
        (result(7), "command", "exit code 7"),
        (result(137, timed_out=True), "timeout", "longer than 5 s"),
        (ExecFailed(Failure.of(GuestError("the guest is gone"))), "machine", "the guest is gone"),
    ],
)
async def test_a_failed_command_is_told_with_the_end_of_its_log(
    api: Api, guest: Guest, database_url: str, last: Record, reason: str, message: str
) -> None:
    async def fail() -> AsyncIterator[Record]:
        yield Output(STDOUT, b"x" * 10_000 + b"last words\n")
        yield last

    guest.build = fail
    path = await start(api, timeout_seconds=5)
    found = await ended(api, path)
    assert (found["status"], found["reason"]) == ("failed", reason)
    assert message in found["error"]
    assert found["exit_code"] == (7 if reason == "command" else None)
    assert found["log_tail"].endswith("last words\n")
    assert len(found["log_tail"]) <= 4096
    for what in ("artifacts", "provenance"):
        refusal(await api.http.get(f"{path}/{what}"), 404)
    assert api.engine.machines == {}
    assert stored(database_url) == ["log", "record.json"]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (archive(), "no file in \\$OUT"),
        (archive(member("d", tarfile.DIRTYPE)), "no file in \\$OUT"),
        (archive(member("l", tarfile.SYMTYPE, linkname="/etc/passwd")), "'l' is a link that points outside"),
        (archive(member("p", tarfile.FIFOTYPE)), "'p' is neither a file"),
        (of_files({"../up": b"1"}), "outside the directory"),
        (of_files({"\udcff": b"1"}), "is not UTF-8"),
        (of_files({"big": bytes(200_000)}), "over 100000 bytes"),
        (of_files({"big": bytes(3_000_000)}), "over"),
    ],
)
async def test_artifacts_that_cannot_be_copied_out(api: Api, guest: Guest, made: bytes, message: str) -> None:
    api.app.state.hermetic_builds._plane = replace(
        api.app.state.plane, settings=replace(api.app.state.plane.settings, max_artifacts_bytes=100_000)
    )
    guest.makes = [made]
    found = await built(api)
    assert (found["status"], found["reason"]) == ("failed", "artifacts")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found["error"])


async def test_a_missing_artifact(api: Api, guest: Guest) -> None:
    guest.collected = result(44)
    found = await built(api, artifacts=["dist"])
    assert (found["reason"], found["error"]) == ("artifacts", "artifacts: the build did not make dist")


async def test_no_room_for_a_machine_fails_the_build(api: Api, guest: Guest) -> None:
    api.engine.refusals["create"] = CapacityError("no memory left")
    found = await built(api)
    assert (found["status"], found["reason"]) == ("failed", "machine")
    assert "no memory left" in found["error"]


async def test_another_workspaces_template_is_unknown(api: Api, guest: Guest) -> None:
    theirs, ours = await api.another("rival"), await api.another("acme")
    build = {"name": "app", "dockerfile": "FROM base"}
    assert (await api.http.post("/v1/templates/build", data=build, headers=theirs)).status_code == 202
    wanted = form(template="app")
    refused = refusal(await api.http.post("/v1/builds", **wanted, headers=ours), 400)
    assert (refused["field"], refused["error"]) == ("template", "unknown template 'app'")
    assert (await api.http.post("/v1/builds", **wanted, headers=theirs)).status_code == 202


async def test_a_template_that_is_replaced_meanwhile_fails_the_build(api: Api, guest: Guest) -> None:
    async def replaced(_sandbox_id: str) -> None:
        api.engine.templates["", "base"] = replace(api.engine.templates["", "base"], version="def")

    api.engine.before_answer = replaced
    found = await built(api)
    assert (found["reason"], found["error"]) == ("machine", "template base was replaced during the build")
    assert api.engine.machines == {}


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"command": ""}, "command"),
        ({"command": 7}, "command"),
        ({"template": "nowhere"}, "template"),
        ({"artifacts": ["/etc"]}, "artifacts"),
        ({"env": {"TZ": "x"}}, "env"),
        ({"source_date_epoch": 5}, "source_date_epoch"),
        ({"source_date_epoch": True}, "source_date_epoch"),
        ({"cpu": 3}, "cpu"),
        ({"timeout_seconds": -1}, "timeout_seconds"),
    ],
)
async def test_a_bad_request_makes_nothing(api: Api, database_url: str, wanted: dict[str, Any], field: str) -> None:
    body = refusal(await api.http.post("/v1/builds", **form(**wanted)), 400)
    assert body["field"] == field
    assert (api.engine.machines, stored(database_url)) == ({}, [])


async def test_a_bad_archive_makes_nothing(api: Api, database_url: str) -> None:
    for content, message in ((b"no tar" * 200, "tar archive"), (of_files({"/../x": b""}), "outside")):
        body = refusal(await api.http.post("/v1/builds", **form(content)), 400)
        assert message in body["error"]
    assert (api.engine.machines, stored(database_url)) == ({}, [])


async def test_the_form_must_be_whole(api: Api) -> None:
    whole = form()
    assert refusal(await api.http.post("/v1/builds", files=whole["files"]), 400)["field"] == "build"
    only = {"build": (None, json.dumps({"command": "make"}))}
    assert refusal(await api.http.post("/v1/builds", files=only), 400)["field"] == "source"
    refusal(await api.http.post("/v1/builds", json={"command": "make"}), 400)
    refusal(await api.http.post("/v1/builds", headers={"content-length": str(1 << 40)}, content=b""), 413)


async def test_builds_of_other_workspaces_are_unknown(api: Api, guest: Guest) -> None:
    path = await start(api)
    found = await ended(api, path)
    builds: service.HermeticBuilds = api.app.state.hermetic_builds
    messages = {refusal(await api.http.get("/v1/builds/none"), 404)["error"]}
    for ask in (builds.get, builds.archive, builds.provenance):
        with pytest.raises(service.NotFoundError) as refused:
            ask(OUTSIDER, found["id"])
        messages.add(str(refused.value))
    with pytest.raises(service.NotFoundError):
        await builds.delete(OUTSIDER, found["id"])
    with pytest.raises(service.NotFoundError):
        async with builds.output(OUTSIDER, found["id"], follow=False):
            pass
    assert messages == {f"build not found: {name}" for name in ("none", found["id"])}
    assert builds.list(OUTSIDER) == []
    assert (await api.http.get(path)).json() == found


async def test_unknown_builds(api: Api) -> None:
    for method, what in (("GET", ""), ("DELETE", ""), ("GET", "/logs"), ("GET", "/artifacts"), ("GET", "/provenance")):
        refusal(await api.http.request(method, f"/v1/builds/none{what}"), 404)


async def endless(begun: anyio.Event) -> AsyncIterator[Record]:
    yield Output(STDOUT, b"begun\n")
    begun.set()
    await anyio.sleep_forever()


async def test_so_many_builds_run_at_once(api: Api, guest: Guest) -> None:
    guest.build = lambda: endless(anyio.Event())
    paths = [await start(api), await start(api)]
    body = refusal(await api.http.post("/v1/builds", **form()), 429)
    assert "PANDASTACK_MAX_BUILDS" in body["hint"]
    refusal(await api.http.get(f"{paths[0]}/artifacts"), 409)
    assert (await api.http.delete(paths[0])).status_code == 204
    paths[0] = await start(api)
    for path in paths:
        assert (await api.http.delete(path)).status_code == 204


async def test_the_limit_is_a_workspaces_own(api: Api, guest: Guest) -> None:
    guest.build = lambda: endless(anyio.Event())
    paths = [await start(api), await start(api)]
    builds: service.HermeticBuilds = api.app.state.hermetic_builds
    builds.check_room(OUTSIDER)
    for path in paths:
        await api.http.delete(path)


async def test_a_deleted_build_leaves_nothing(api: Api, guest: Guest, database_url: str) -> None:
    begun = anyio.Event()
    guest.build = lambda: endless(begun)
    path = await start(api)
    with anyio.fail_after(20):
        await begun.wait()
    follower: list[httpx.Response] = []

    async def follow() -> None:
        follower.append(await api.http.get(f"{path}/logs?follow=1"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        assert (await api.http.delete(path)).status_code == 204
    assert "build not found" in follower[0].text
    refusal(await api.http.get(path), 404)
    assert (api.engine.machines, stored(database_url)) == ({}, [])


async def test_a_build_whose_server_stops_is_interrupted_and_its_machine_gone(serve: Serve) -> None:
    engine, guest, begun = ScriptedEngine(), Guest(), anyio.Event()
    engine.exec_records, guest.build = guest, lambda: endless(begun)
    async with serve(engine) as api:
        path = await start(api)
        with anyio.fail_after(20):
            await begun.wait()
    assert engine.machines == {}
    async with serve(engine, api.token) as api:
        found = (await api.http.get(path)).json()
        assert (found["status"], found["reason"]) == ("failed", "interrupted")
        assert "event: ended" in (await api.http.get(f"{path}/logs?follow=1")).text
        assert "begun" in (await api.http.get(f"{path}/logs")).text


async def test_a_build_whose_server_was_killed_is_interrupted_and_its_machine_gone(
    serve: Serve, database_url: str
) -> None:
    """What the killed server left: a record of a running build, half a file, and a sandbox that runs."""
    engine = ScriptedEngine()
    engine.exec_records = Guest()
    async with serve(engine) as api:
        path = await start(api)
        await ended(api, path)
        left = await api.sandbox()
    directory = Path(database_url.removeprefix("sqlite:///")).with_name("builds") / path.rpartition("/")[2]
    record = json.loads((directory / "record.json").read_text())
    running = {**record, "status": "running", "sandboxes": [left.rpartition("/")[2]], "artifacts": []}
    (directory / "record.json").write_text(json.dumps(running))
    (directory / ".source").write_bytes(b"half")
    (directory.parent / "unfinished").mkdir()
    async with serve(engine, api.token) as api:
        found = (await api.http.get(path)).json()
        assert (found["status"], found["reason"]) == ("failed", "interrupted")
        refusal(await api.http.get(left), 404)
    assert engine.machines == {}
    assert not (directory / ".source").exists()
    assert not (directory.parent / "unfinished").exists()


async def test_only_so_many_ended_builds_are_kept(api: Api, guest: Guest) -> None:
    plane = api.app.state.plane
    api.app.state.hermetic_builds._plane = replace(plane, settings=replace(plane.settings, kept_builds=2))
    ids = [(await built(api))["id"] for _ in range(4)]
    kept = [each["id"] for each in (await api.http.get("/v1/builds")).json()["builds"]]
    assert kept == [ids[3], ids[2]]


async def test_a_long_log_is_cut(api: Api, guest: Guest) -> None:
    async def talk() -> AsyncIterator[Record]:
        for _ in range(9):
            yield Output(STDOUT, b"x" * (1 << 20))
        yield Output(STDOUT, b"the end")
        yield result(1)

    guest.build = talk
    path = await start(api)
    found = await ended(api, path)
    assert found["log_tail"].endswith("the end")
    log = (await api.http.get(f"{path}/logs")).text
    assert len(log) < 9 * (1 << 20)
    assert "the rest is dropped" in log


async def test_a_repeated_request_starts_one_build(api: Api, guest: Guest) -> None:
    key = {"idempotency-key": "k"}
    answers = [await api.http.post("/v1/builds", headers=key, **form()) for _ in range(2)]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert len((await api.http.get("/v1/builds")).json()["builds"]) == 1
    await ended(api, f"/v1/builds/{answers[0].json()['id']}")


async def test_without_a_directory_there_are_no_builds(api: Api) -> None:
    builds: service.HermeticBuilds = api.app.state.hermetic_builds
    builds._shelf = service.Shelf(None)
    with pytest.raises(service.PandastackError, match="no directory for builds"):
        await builds.start(Caller("default", "me"), planned_build("make"), in_pieces(SOURCE))


def test_builds_are_beside_the_database_or_where_the_operator_says(tmp_path: Path) -> None:
    assert service.shelf_directory("", f"sqlite:///{tmp_path}/p.db") == tmp_path / "builds"
    assert service.shelf_directory("", "postgresql://host/name") is None
    assert service.shelf_directory(str(tmp_path / "x"), "postgresql://host/name") == tmp_path / "x"
    assert Settings.from_env({"PANDASTACK_BUILDS_DIR": "/x", "PANDASTACK_MAX_BUILDS": "5"}).max_builds == 5


async def test_a_failure_while_input_arrives_leaves_nothing(api: Api, database_url: str) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield SOURCE[:600]
        raise OSError("connection lost")

    builds: service.HermeticBuilds = api.app.state.hermetic_builds
    with contextlib.suppress(OSError):
        await builds.start(Caller("default", "me"), planned_build("make"), broken())
    assert stored(database_url) == []
    assert builds.list(Caller("default", "me")) == []


async def test_an_unexpected_error_fails_one_build_and_not_the_server(
    api: Api, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as patched:
        patched.setattr("pandastack.products.builds.work.provenance", broken)
        found = await built(api)
    assert (found["status"], found["reason"], found["error"]) == ("failed", "machine", "internal server error")
    assert (await built(api))["status"] == "done"


LOCK = "# pandastack build lock, version 1\n"
LINE = f"GET https://example.org/ 200 1 {'0' * 64}\n"


def with_lock(lock: str, **wanted: Any) -> dict[str, Any]:
    given = form(**wanted)
    return {**given, "data": {**given["data"], "lock": lock}}


@pytest.mark.parametrize(
    ("lock", "wanted", "said"),
    [
        ("nonsense", {}, "lock: line 1"),
        (LOCK + LINE + "<<<<<<<\n", {}, "lock: line 3"),
        (LOCK, {"record": True}, "lock: a build that records"),
        (LOCK + LINE, {}, "1 body that it names is not stored here: https://example.org/"),
    ],
)
async def test_a_lock_that_cannot_be_kept_is_refused(
    api: Api, guest: Guest, database_url: str, lock: str, wanted: dict[str, Any], said: str
) -> None:
    refused = await api.http.post("/v1/builds", **with_lock(lock, **wanted))
    assert (refused.status_code, refused.json()["field"]) == (400, "lock")
    assert said in refused.json()["error"]
    assert stored(database_url) == []
    assert guest.commands == []


async def test_a_build_without_a_network_has_neither_lock_nor_report(api: Api, guest: Guest) -> None:
    path = await start(api)
    found = await ended(api, path)
    assert (found["network"], found["lock_sha256"], found["refused"]) == ("none", None, [])
    for each in ("lock", "report"):
        assert (await api.http.get(f"{path}/{each}")).status_code == 404


async def test_what_differs_is_explained_in_a_machine_of_its_own(api: Api, guest: Guest) -> None:
    guest.makes = [of_files({"program": b"one"}), of_files({"program": b"two"})]
    path = await start(api, verify=True, explain="base")
    assert (await ended(api, path))["status"] == "differs"
    report = (await api.http.get(f"{path}/report")).text
    compared = [each for each in guest.commands if "diffoscope" in each]
    assert (len(compared), report) == (1, "")
    assert len(api.engine.networks) == 3
    assert api.engine.machines == {}


async def test_an_explanation_that_fails_does_not_fail_the_build(api: Api, guest: Guest) -> None:
    guest.makes = [of_files({"program": b"one"}), of_files({"program": b"two"})]

    async def without(spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        if "diffoscope" in spec.cmd:
            yield result(127)
            return
        async for each in guest(spec):
            yield each

    api.engine.exec_records = without
    path = await start(api, verify=True, explain="base")
    assert (await ended(api, path))["status"] == "differs"
    assert (await api.http.get(f"{path}/report")).text == "no report: template base has no diffoscope\n"


async def test_a_template_that_explains_must_exist(api: Api, guest: Guest) -> None:
    refused = await api.http.post("/v1/builds", **form(verify=True, explain="missing"))
    assert (refused.status_code, refused.json()["field"]) == (400, "explain")
    unverified = await api.http.post("/v1/builds", **form(explain="base"))
    assert (unverified.status_code, unverified.json()["field"]) == (400, "explain")


async def until_delivered(api: Api, hook: str) -> None:
    """Wait until the server has noted it: one that ends before sends it again."""
    with anyio.fail_after(30):
        while True:
            (one,) = (await api.http.get(f"/v1/webhooks/{hook}/deliveries")).json()["deliveries"]
            if one["state"] == "delivered":
                return
            await anyio.sleep(0.02)


async def test_webhooks_are_told_of_its_end_once(serve: Serve) -> None:
    with receiving() as receiver:
        async with serve(ScriptedEngine()) as api:
            api.engine.exec_records = Guest()
            hook = await api.http.post("/v1/webhooks", json={"url": receiver.url, "events": ["build.ended"]})
            found, token = await built(api), api.token
            (told,) = await receiver.until(1)
            await until_delivered(api, hook.json()["id"])
        async with serve(ScriptedEngine(), token) as api:  # it tells again what ended lately
            api.engine.exec_records = Guest()
            await built(api)
            assert len(await receiver.until(2)) == 2
    data = json.loads(told.body)["data"]
    assert (data["id"], data["kind"], data["status"]) == (found["id"], "hermetic", "done")
    assert receiver.received[1].id != told.id
