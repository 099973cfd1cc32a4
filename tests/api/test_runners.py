"""Runner pools and jobs over the API, against a scripted engine."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import httpx
import pytest

from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDERR, STDOUT, Output, Record
from pandastack.errors import CapacityError, GuestError, ServerError
from pandastack.model.network import Egress
from pandastack.products.runners import Runners
from pandastack.products.runners.commands import PROBE
from pandastack.products.runners.refreshing import Refreshing
from pandastack.services import ControlPlane
from pandastack.services.github.events import WorkflowJob
from tests.cluster.scripted_engine import ScriptedEngine, result
from tests.support.api import Api, Serve, refusal
from tests.support.github import REPOSITORY, TOKEN, faking
from tests.support.receiver import receiving

pytestmark = pytest.mark.anyio

POOLS, JOBS = "/v1/runner-pools", "/v1/jobs"
TAR = {"content-type": "application/x-tar"}
NOBODYS = "00000000-0000-4000-8000-000000000000"


class Guest:
    """A guest whose commands end as told: by words in the command."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.ran: list[str] = []
        self.given: list[bytes | None] = []
        self.go = anyio.Event()
        self.probe = "oom_kill 0\n\n"
        self.archive = tar_of({"./out/report.xml": b"<x/>"})
        engine.exec_records = self._run

    async def _run(self, spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        if spec.cmd == PROBE:
            yield Output(STDOUT, self.probe.encode())
            yield result()
            return
        self.ran.append(spec.cmd)
        self.given.append(spec.stdin)
        if "exec tar" in spec.cmd:
            yield Output(STDOUT, self.archive)
        if "WAIT" in spec.cmd:
            yield Output(STDOUT, b"waiting\n")
            await self.go.wait()
        if "PRINT" in spec.cmd:
            yield Output(STDOUT, b"out\n")
            yield Output(STDERR, b"err\n")
        if "BREAK" in spec.cmd:
            raise ServerError("broken")
        yield result(7 if "FAIL" in spec.cmd else 0, timed_out="SLOW" in spec.cmd)

    def count(self, word: str) -> int:
        return sum(word in each for each in self.ran)


def tar_of(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def guest(engine: ScriptedEngine) -> Guest:
    return Guest(engine)


@pytest.fixture
async def api(serve: Serve, engine: ScriptedEngine) -> AsyncIterator[Api]:
    async with serve(engine) as api:
        yield api


def runners_of(api: Api) -> Runners:
    runners: Runners = api.app.state.runners
    return runners


async def until(holds: Callable[[], object]) -> None:
    with anyio.fail_after(10):
        while True:
            if holds():
                return
            await anyio.sleep(0.01)


async def pool(api: Api, name: str = "ci", **wanted: Any) -> dict[str, Any]:
    """A pool that has been prepared, or could not be."""
    await put(api, name, **wanted)
    answer = await api.http.post(f"{POOLS}/{name}/refresh")
    assert answer.status_code == 202, answer.text
    return await prepared(api, name)


async def put(api: Api, name: str = "ci", **wanted: Any) -> dict[str, Any]:
    answer = await api.http.put(f"{POOLS}/{name}", json=wanted)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def prepared(api: Api, name: str = "ci") -> dict[str, Any]:
    events = await log(api, f"{POOLS}/{name}")
    assert events[-1][0] == "ended"
    body: dict[str, Any] = (await api.http.get(f"{POOLS}/{name}")).json()
    return body


async def job(api: Api, *steps: str, **wanted: Any) -> dict[str, Any]:
    answer = await api.http.post(JOBS, json={"pool": "ci", "steps": list(steps), **wanted})
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def ended(api: Api, made: dict[str, Any]) -> dict[str, Any]:
    name, last = (await log(api, f"{JOBS}/{made['id']}"))[-1]
    assert name == "ended"
    assert last == (await api.http.get(f"{JOBS}/{made['id']}")).json()
    return last


async def log(api: Api, path: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a log until its end."""
    with anyio.fail_after(15):
        answer = await api.http.get(f"{path}/logs", params={"follow": "1"})
    assert answer.status_code == 200, answer.text
    events = [each.split("\n") for each in answer.text.split("\n\n") if each.startswith("event: ")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in events]


def printed(events: list[tuple[str, dict[str, Any]]], stream: str) -> str:
    return "".join(data["text"] for name, data in events if name == stream)


def snapshots(api: Api) -> list[str]:
    return list(api.engine.snapshots)


async def test_the_life_of_a_pool(api: Api, guest: Guest) -> None:
    made = await put(api, prepare=["make PRINT"], labels=["Linux"], env={"A": "1"}, concurrency=3, memory_mb=512)
    assert (made["state"], made["version"], made["labels"], made["env"]) == ("unprepared", None, ["linux"], ["A"])
    assert (await api.http.post(f"{POOLS}/ci/refresh")).status_code == 202
    events = await log(api, f"{POOLS}/ci")
    assert "out\n" in printed(events, "stdout") and "err\n" in printed(events, "stderr")
    assert "step 1 of 1: make PRINT" in printed(events, "stderr")
    ready = (await api.http.get(f"{POOLS}/ci")).json()
    assert ready["state"] == "ready" and ready["error"] is None
    assert snapshots(api) == [ready["version"]["id"]] and api.engine.machines == {}
    assert (await api.http.get(POOLS)).json() == {"pools": [ready]}
    assert (await api.http.delete(f"{POOLS}/ci")).status_code == 204
    assert snapshots(api) == [] and (await api.http.get(POOLS)).json() == {"pools": []}
    refusal(await api.http.get(f"{POOLS}/ci"), 404)


async def test_a_refresh_takes_the_place_of_the_version_and_a_failed_one_does_not(api: Api, guest: Guest) -> None:
    first = await pool(api)
    second = (await api.http.post(f"{POOLS}/ci/refresh"), await prepared(api))[1]
    assert second["version"]["id"] != first["version"]["id"]
    assert snapshots(api) == [second["version"]["id"]]
    failed = await pool(api, prepare=["make FAIL"])
    assert failed["state"] == "ready" and failed["version"] == second["version"]
    assert failed["error"] == "command 1 ended with exit code 7"
    guest.probe = "oom_kill 1\n\n"
    assert (await pool(api, prepare=["FAIL"]))["error"] == "command 1 ended with exit code 7 (oom)"
    assert "took longer" in (await pool(api, prepare=["SLOW"]))["error"]
    assert snapshots(api) == [second["version"]["id"]] and api.engine.machines == {}
    assert (await pool(api))["error"] is None


async def test_what_a_pool_is_made_of_is_uploaded(api: Api, guest: Guest) -> None:
    await put(api)
    answer = await api.http.post(f"{POOLS}/ci/refresh", content=tar_of({"Makefile": b"all:"}), headers=TAR)
    assert answer.status_code == 202
    assert (await prepared(api))["state"] == "ready"
    assert guest.count("tar -C") == 1
    await api.http.post(f"{POOLS}/ci/refresh")  # with the same checkout
    await prepared(api)
    assert guest.count("tar -C") == 2
    refusal(await api.http.post(f"{POOLS}/ci/refresh", content=b"x" * 1024, headers=TAR), 400)
    assert (await prepared(api))["state"] == "ready"
    await put(api, git={"url": "https://example.org/r.git"})
    body = refusal(await api.http.post(f"{POOLS}/ci/refresh", content=tar_of({"a": b""}), headers=TAR), 400)
    assert body["field"] == "source"


async def test_a_pool_is_prepared_once_at_a_time_and_can_be_deleted_meanwhile(api: Api, guest: Guest) -> None:
    await put(api, prepare=["WAIT"])
    await api.http.post(f"{POOLS}/ci/refresh")
    await until(lambda: guest.count("WAIT"))
    assert (await api.http.get(f"{POOLS}/ci")).json()["state"] == "preparing"
    refusal(await api.http.post(f"{POOLS}/ci/refresh"), 409)
    (machine,) = api.engine.machines
    body = refusal(await api.http.post(f"/v1/sandboxes/{machine}/exec", json={"cmd": "true"}), 409)
    assert body["hint"] == "use /v1/runner-pools/ci instead"
    assert (await api.http.get(f"{POOLS}/{machine}")).json()["name"] == "ci"
    assert (await api.http.delete(f"{POOLS}/ci")).status_code == 204
    assert api.engine.machines == {} and snapshots(api) == []


async def test_prepared_versions_are_no_callers_snapshots(api: Api, guest: Guest) -> None:
    version = (await pool(api))["version"]["id"]
    assert (await api.http.get("/v1/snapshots")).json() == {"snapshots": []}
    for method in ("GET", "DELETE"):
        refusal(await api.http.request(method, f"/v1/snapshots/{version}"), 404)
    refusal(await api.http.post("/v1/sandboxes", json={"from_snapshot": version}), 404)


async def test_the_life_of_a_job(api: Api, guest: Guest) -> None:
    version = (await pool(api, env={"POOLS": "p"}))["version"]["id"]
    made = await job(api, "PRINT one", "two", env={"OWN": "o"}, artifacts=["out"])
    assert made["state"] in ("queued", "preparing") and made["env"] == ["OWN"]
    last = await ended(api, made)
    assert (last["state"], last["exit_code"], last["version"]) == ("succeeded", 0, version)
    assert last["started_at"] and last["ended_at"] and last["error"] is None
    events = await log(api, f"{JOBS}/{made['id']}")
    assert printed(events, "stdout") == "out\n"
    assert printed(events, "stderr") == "[step 1 of 2: PRINT one]\nerr\n[step 2 of 2: two]\n"
    assert "POOLS=p" in guest.ran[-2] and "OWN=o" in guest.ran[-2] and f"PANDASTACK_JOB={made['id']}" in guest.ran[-2]
    assert api.engine.machines == {}, "its machine is gone before its end is told"
    archive = await api.http.get(f"{JOBS}/{made['id']}/artifacts")
    assert len(archive.content) == last["artifacts_bytes"]
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as tar:
        assert "out/report.xml" in tar.getnames()
    assert (await api.http.get(JOBS)).json() == {"jobs": [last]}
    assert (await api.http.get(JOBS, params={"pool": "other"})).json() == {"jobs": []}
    assert (await api.http.delete(f"{JOBS}/{made['id']}")).status_code == 204
    refusal(await api.http.get(f"{JOBS}/{made['id']}"), 404)
    refusal(await api.http.get(f"{JOBS}/{made['id']}/logs"), 404)


async def test_a_job_ends_with_its_first_command_that_fails(api: Api, guest: Guest) -> None:
    await pool(api)
    last = await ended(api, await job(api, "one", "FAIL", "three", artifacts=["out"]))
    assert (last["state"], last["exit_code"], last["failed_step"], last["reason"]) == ("failed", 7, 1, None)
    assert guest.count("three") == 0
    assert last["artifacts_bytes"], "reports are wanted of failed jobs above all"


async def test_a_job_that_fails_says_what_the_guest_knows(api: Api, guest: Guest) -> None:
    await pool(api)
    guest.probe = "oom_kill 1\n\n"
    last = await ended(api, await job(api, "FAIL"))
    assert (last["state"], last["reason"]) == ("failed", "oom") and "memory" in last["error"]
    guest.probe = "oom_kill 0\n\nF\n/dev/vda 1 1 0 100% /\n"
    assert (await ended(api, await job(api, "FAIL")))["reason"] == "disk_full"


async def test_a_deadline(api: Api, guest: Guest) -> None:
    await pool(api)
    last = await ended(api, await job(api, "SLOW", deadline_seconds=5))
    assert (last["state"], last["exit_code"], last["error"]) == ("timed_out", None, "it took longer than 5 s")


async def test_a_machine_that_cannot_be_used_is_an_error(api: Api, guest: Guest) -> None:
    await pool(api)
    last = await ended(api, await job(api, "BREAK"))
    assert (last["state"], last["reason"]) == ("error", "machine")
    api.engine.refusals["create"] = GuestError("no machine")
    last = await ended(api, await job(api, "one"))
    assert (last["state"], last["reason"], last["started_at"]) == ("error", "machine", None)
    assert api.engine.machines == {}


async def test_artifacts_that_cannot_be_copied_out_are_an_error(api: Api, guest: Guest) -> None:
    await pool(api)
    guest.archive = b"no archive" * 100
    last = await ended(api, await job(api, "one", artifacts=["out"]))
    assert (last["state"], last["reason"], last["artifacts_bytes"]) == ("error", "artifacts", None)
    assert (await ended(api, await job(api, "FAIL", artifacts=["out"])))["state"] == "failed"
    refusal(await api.http.get(f"{JOBS}/{last['id']}/artifacts"), 404)


async def test_a_job_waits_for_room(api: Api, guest: Guest) -> None:
    await pool(api)
    api.engine.refusals["create"] = CapacityError("full")
    made = await job(api, "one")
    await until(lambda: sum(each.startswith(f"create {made['id']}") for each in api.engine.calls) > 1)
    del api.engine.refusals["create"]
    assert (await ended(api, made))["state"] == "succeeded"
    assert "waiting for room: full" in printed(await log(api, f"{JOBS}/{made['id']}"), "stderr")


async def test_jobs_begin_in_turn_and_no_more_at_once_than_their_pool_takes(api: Api, guest: Guest) -> None:
    await pool(api, concurrency=2)
    made = [await job(api, f"WAIT {number}") for number in range(4)]
    await until(lambda: guest.count("WAIT") == 2)
    states = [(await api.http.get(f"{JOBS}/{each['id']}")).json()["state"] for each in made]
    assert states == ["running", "running", "queued", "queued"]
    assert len(api.engine.machines) == 2
    cancelled = (await api.http.post(f"{JOBS}/{made[0]['id']}/cancel")).json()
    assert cancelled["state"] == "cancelled" and made[0]["id"] not in api.engine.machines
    await until(lambda: guest.count("WAIT") == 3)
    assert "WAIT 2" in guest.ran[-1]
    assert (await api.http.post(f"{JOBS}/{made[3]['id']}/cancel")).json()["state"] == "cancelled"
    guest.go.set()
    assert [(await ended(api, each))["state"] for each in made] == ["cancelled", "succeeded", "succeeded", "cancelled"]
    again = (await api.http.post(f"{JOBS}/{made[1]['id']}/cancel")).json()
    assert again["state"] == "succeeded" and guest.count("WAIT 3") == 0


async def test_a_job_that_is_cancelled_while_its_machine_is_made_leaves_none(api: Api, guest: Guest) -> None:
    """The engine goes on with a create that has begun, whoever has left."""
    await pool(api)
    begun, go = anyio.Event(), anyio.Event()

    async def before(action: str, _sandbox_id: str) -> None:
        if action == "create":
            begun.set()
            with anyio.CancelScope(shield=True):
                await go.wait()

    api.engine.before = before
    made = await job(api, "one")
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(10):
            await begun.wait()
        tasks.start_soon(api.http.post, f"{JOBS}/{made['id']}/cancel")
        await anyio.sleep(0.2)  # time enough to leave before the machine is there
        go.set()
    assert (await ended(api, made))["state"] == "cancelled"
    await until(lambda: api.engine.machines == {})
    await anyio.sleep(0.1)
    assert api.engine.machines == {} and guest.count("one") == 0


async def test_jobs_of_a_pool_that_is_deleted_end(api: Api, guest: Guest) -> None:
    await pool(api, concurrency=1)
    made = [await job(api, "WAIT"), await job(api, "WAIT")]
    await until(lambda: guest.count("WAIT"))
    assert (await api.http.delete(f"{POOLS}/ci")).status_code == 204
    assert [(await ended(api, each))["state"] for each in made] == ["cancelled", "cancelled"]
    assert api.engine.machines == {} and snapshots(api) == []


async def test_jobs_wait_for_a_first_version(api: Api, guest: Guest) -> None:
    await put(api, prepare=["WAIT"])
    body = refusal(await api.http.post(JOBS, json={"pool": "ci", "steps": ["true"]}), 409)
    assert body["field"] == "pool" and "refresh" in body["hint"]
    await api.http.post(f"{POOLS}/ci/refresh")
    made = await job(api, "one")
    guest.go.set()
    assert (await ended(api, made))["state"] == "succeeded"


async def test_jobs_that_wait_for_a_version_which_fails_end(api: Api, guest: Guest) -> None:
    await put(api, prepare=["WAIT FAIL"])
    await api.http.post(f"{POOLS}/ci/refresh")
    made = [await job(api, "one"), await job(api, "two")]
    guest.go.set()
    for each in made:
        last = await ended(api, each)
        assert (last["state"], last["reason"]) == ("error", "pool") and "exit code 7" in last["error"]


async def test_the_input_reaches_the_first_command_only(api: Api, guest: Guest) -> None:
    await pool(api)
    config = base64.b64encode(b"encoded jit config").decode()
    made = await job(api, './run.sh --jitconfig "$(cat)"', "two", stdin=config)
    await ended(api, made)
    assert guest.given[-2:] == [b"encoded jit config", None]
    plane: ControlPlane = api.app.state.plane
    async with plane.store.read() as connection:
        stored = (await connection.exec_driver_sql("SELECT spec FROM jobs")).all()
    assert "jit config" not in str(stored) and config not in str(stored)


async def test_a_job_finds_its_pool_by_labels(api: Api, guest: Guest) -> None:
    await pool(api, "small", labels=["linux"])
    await pool(api, "large", labels=["linux", "large"])
    answer = await api.http.post(JOBS, json={"labels": ["LARGE", "Linux"], "steps": ["true"]})
    assert answer.json()["pool"] == "large"
    body = refusal(await api.http.post(JOBS, json={"labels": ["gpu"], "steps": ["true"]}), 404)
    assert body["field"] == "labels"
    for wrong in ({}, {"pool": "small", "labels": ["linux"]}):
        assert refusal(await api.http.post(JOBS, json={"steps": ["true"], **wrong}), 400)["field"] == "pool"


async def test_secrets_are_for_trusted_jobs(api: Api, guest: Guest) -> None:
    secret = {"name": "TOKEN", "value": "hidden-value", "hosts": ["example.org"]}
    assert (await api.http.post("/v1/secrets", json=secret)).status_code == 201
    await pool(api, network={"egress": "allow", "secrets": ["TOKEN"]})
    for trusted in (True, False):
        made = await job(api, f"WAIT {trusted}", trusted=trusted)
        await until(lambda: guest.count(f"WAIT {trusted}"))  # noqa: B023
        policy = api.engine.networks[made["id"]]
        assert policy.secrets == (("TOKEN",) if trusted else ()) and policy.egress is Egress.ALLOW
        assert (made["id"] in api.engine.secrets) is trusted
        await api.http.post(f"{JOBS}/{made['id']}/cancel")


async def test_the_machine_of_a_failed_job_is_kept(api: Api, guest: Guest) -> None:
    await pool(api)
    last = await ended(api, await job(api, "FAIL", keep_seconds=600))
    assert last["state"] == "failed" and last["sandbox_id"] == last["id"] and last["kept_until"]
    sandbox = (await api.http.get(f"/v1/sandboxes/{last['id']}")).json()
    assert (sandbox["status"], sandbox["ttl_seconds"], sandbox["max_lifetime_seconds"]) == ("hibernated", 600, None)
    assert (await api.http.post(f"/v1/sandboxes/{last['id']}/exec", json={"cmd": "true"})).status_code == 200
    assert (await ended(api, await job(api, "one", keep_seconds=600)))["sandbox_id"] is None
    assert (await api.http.delete(f"{JOBS}/{last['id']}")).status_code == 204
    assert (await api.http.delete(f"/v1/sandboxes/{last['id']}")).status_code == 204
    assert api.engine.machines == {}


async def test_the_machine_of_a_job_is_used_through_the_job_only(api: Api, guest: Guest) -> None:
    await pool(api)
    made = await job(api, "WAIT")
    await until(lambda: guest.count("WAIT"))
    body = refusal(await api.http.delete(f"/v1/sandboxes/{made['id']}"), 409)
    assert body["hint"] == f"use /v1/jobs/{made['id']} instead"


async def test_a_sandbox_of_a_prepared_version(api: Api, guest: Guest) -> None:
    await put(api)
    refusal(await api.http.post(f"{POOLS}/ci/sandboxes"), 409)
    version = (await pool(api))["version"]["id"]
    key = {"Idempotency-Key": "once"}
    made = [await api.http.post(f"{POOLS}/ci/sandboxes", json={"ttl_seconds": 60}, headers=key) for _ in range(2)]
    assert made[0].status_code == 201 and made[0].json() == made[1].json()
    sandbox = made[0].json()
    assert (sandbox["from_snapshot"], sandbox["ttl_seconds"]) == (version, 60)
    assert (await api.http.delete(f"/v1/sandboxes/{sandbox['id']}")).status_code == 204


async def test_bad_requests_name_the_field_and_do_nothing(api: Api, guest: Guest) -> None:
    await pool(api)
    calls = list(api.engine.calls)
    for field, body in {
        "steps": {"steps": []},
        "stdin": {"steps": ["a"], "stdin": "no base64!"},
        "artifacts": {"steps": ["a"], "artifacts": ["/etc"]},
        "ref": {"steps": ["a"], "ref": "main"},
        "deadline_seconds": {"steps": ["a"], "deadline_seconds": 1e9},
        "keep_seconds": {"steps": ["a"], "keep_seconds": True},
    }.items():
        answer = refusal(await api.http.post(JOBS, json={"pool": "ci", **body}), 400)
        assert answer["field"] == field
    refusal(await api.http.post(JOBS, json={"pool": "nope", "steps": ["a"]}), 404)
    for field, body in {
        "template": {"template": "nope"},
        "concurrency": {"concurrency": 0},
        "git.url": {"git": {"url": "x"}},
        "network.egress": {"network": {"egress": "?"}},
        "cpu": {"cpu": 0},
    }.items():
        answer = refusal(await api.http.put(f"{POOLS}/ci", json=body), 400)
        assert answer["field"] == field
    assert refusal(await api.http.put(f"{POOLS}/Not-A-Name", json={}), 400)["field"] == "name"
    assert api.engine.calls == calls and (await api.http.get(JOBS)).json() == {"jobs": []}


async def test_what_is_uploaded_is_a_tar_archive(api: Api, guest: Guest) -> None:
    await put(api)
    refusal(await api.http.post(f"{POOLS}/ci/refresh", content=b"{}"), 400)
    assert api.engine.machines == {} and (await api.http.get(f"{POOLS}/ci")).json()["state"] == "unprepared"


async def test_lists_of_jobs_are_limited(api: Api, guest: Guest) -> None:
    await pool(api)
    made = [await job(api, "one") for _ in range(2)]
    assert [each["id"] for each in (await api.http.get(JOBS, params={"limit": 1})).json()["jobs"]] == [made[1]["id"]]
    for wrong in (0, 1001):
        assert refusal(await api.http.get(JOBS, params={"limit": wrong}), 400)["field"] == "limit"


async def test_a_key_makes_one_job(api: Api, guest: Guest) -> None:
    await pool(api)
    key = {"Idempotency-Key": "one"}
    body = {"pool": "ci", "steps": ["once"]}
    made = [(await api.http.post(JOBS, json=body, headers=key)).json()["id"] for _ in range(2)]
    assert made[0] == made[1]
    await ended(api, {"id": made[0]})
    assert guest.count("once") == 1


async def test_another_workspace_finds_nothing(api: Api, guest: Guest) -> None:
    await pool(api)
    made = await job(api, "one", artifacts=["out"])
    await ended(api, made)
    theirs = await api.another("rival")
    for method, path in (
        ("GET", f"{POOLS}/ci"),
        ("DELETE", f"{POOLS}/ci"),
        ("POST", f"{POOLS}/ci/refresh"),
        ("GET", f"{POOLS}/ci/logs"),
        ("POST", f"{POOLS}/ci/sandboxes"),
        ("GET", f"{JOBS}/{made['id']}"),
        ("DELETE", f"{JOBS}/{made['id']}"),
        ("POST", f"{JOBS}/{made['id']}/cancel"),
        ("GET", f"{JOBS}/{made['id']}/logs"),
        ("GET", f"{JOBS}/{made['id']}/artifacts"),
    ):
        one = await api.http.request(method, path, headers=theirs)
        none = await api.http.request(method, path.replace(made["id"], NOBODYS).replace("/ci", "/xy"), headers=theirs)
        refusal(one, 404)
        assert without(one, "ci", made["id"]) == without(none, "xy", NOBODYS)
    assert (await api.http.post(JOBS, json={"pool": "ci", "steps": ["a"]}, headers=theirs)).status_code == 404
    assert (await api.http.get(JOBS, headers=theirs)).json() == {"jobs": []}
    assert (await api.http.get(POOLS, headers=theirs)).json() == {"pools": []}


def without(answer: httpx.Response, *words: str) -> str:
    text = answer.text
    for each in words:
        text = text.replace(each, "?")
    return text


async def test_ended_jobs_are_kept_up_to_a_number(api: Api, guest: Guest) -> None:
    await pool(api)
    runners_of(api).jobs._plane = with_settings(api, kept_jobs=2)
    made = [await job(api, "one") for _ in range(3)]
    for each in made[1:]:
        await ended(api, each)
    await until(lambda: not runners_of(api).jobs._active)
    kept = [each["id"] for each in (await api.http.get(JOBS)).json()["jobs"]]
    assert kept == [made[2]["id"], made[1]["id"]]


def with_settings(api: Api, **values: int) -> Any:
    """The control plane, as jobs see it, with other settings."""
    from dataclasses import replace

    plane: ControlPlane = api.app.state.plane
    return replace(plane, settings=replace(plane.settings, **values))


async def test_quotas(api: Api, guest: Guest) -> None:
    await pool(api, concurrency=1)
    runners_of(api).jobs._records._plane = with_settings(api, max_waiting_jobs=2, max_runner_pools=1)
    for _ in range(2):
        await job(api, "WAIT")
    refusal(await api.http.post(JOBS, json={"pool": "ci", "steps": ["a"]}), 429)
    refusal(await api.http.put(f"{POOLS}/other", json={}), 429)


async def test_a_server_that_stops_ends_what_runs_and_the_next_one_begins_what_waits(
    serve: Serve, engine: ScriptedEngine, guest: Guest
) -> None:
    config = base64.b64encode(b"x").decode()
    async with serve(engine) as api:
        await pool(api, concurrency=1)
        running, waiting = await job(api, "WAIT first"), await job(api, "second")
        lost = await job(api, "third", stdin=config)
        await until(lambda: guest.count("WAIT"))
        token = api.token
    assert engine.machines == {}
    async with serve(engine, token) as api:
        last = await ended(api, running)
        assert (last["state"], last["reason"]) == ("error", "interrupted")
        assert (await ended(api, waiting))["state"] == "succeeded"
        last = await ended(api, lost)
        assert (last["state"], last["reason"]) == ("error", "interrupted") and "input" in last["error"]
    assert (guest.count("first"), guest.count("second"), guest.count("third")) == (1, 1, 0)


@pytest.mark.parametrize(
    "state, after", [("preparing", "succeeded"), ("running", "error"), ("queued", "succeeded")], ids=str
)
async def test_a_server_that_was_killed_leaves_no_job_twice_and_none_silent(
    serve: Serve, engine: ScriptedEngine, guest: Guest, state: str, after: str
) -> None:
    """What a killed server leaves is a record in the state that it had, and its machine."""
    async with serve(engine) as api:
        await pool(api)
        made = await job(api, "work")
        await ended(api, made)
        plane: ControlPlane = api.app.state.plane
        async with plane.store.write() as connection:
            await connection.exec_driver_sql(f"UPDATE jobs SET state = '{state}', ended_at = NULL")
        token = api.token
    ran = guest.count("work")
    engine.put(made["id"])
    async with serve(engine, token) as api:
        last = await ended(api, made)
        assert last["state"] == after
    assert guest.count("work") - ran == (after == "succeeded")
    assert engine.machines == {}


async def test_a_refresh_that_was_interrupted_leaves_the_former_version_and_says_so(
    serve: Serve, engine: ScriptedEngine, guest: Guest
) -> None:
    async with serve(engine) as api:
        version = (await pool(api))["version"]
        await put(api, prepare=["WAIT"])
        await api.http.post(f"{POOLS}/ci/refresh")
        await until(lambda: guest.count("WAIT"))
        token = api.token
    async with serve(engine, token) as api:
        found = (await api.http.get(f"{POOLS}/ci")).json()
        assert (found["state"], found["version"]) == ("ready", version)
        assert found["error"] == "the server ended as the pool was being prepared"
        assert snapshots(api) == [version["id"]] and engine.machines == {}


async def test_a_prepared_snapshot_without_a_pool_is_deleted_at_the_next_start(
    serve: Serve, engine: ScriptedEngine, guest: Guest
) -> None:
    async with serve(engine) as api:
        await pool(api)
        plane: ControlPlane = api.app.state.plane
        async with plane.store.write() as connection:
            await connection.exec_driver_sql("UPDATE runner_pools SET version = NULL")
        token = api.token
    async with serve(engine, token) as api:
        assert snapshots(api) == []
        assert (await api.http.get(f"{POOLS}/ci")).json()["state"] == "unprepared"


async def retry(api: Api, made: dict[str, Any], **wanted: int) -> dict[str, Any]:
    answer = await api.http.post(f"{JOBS}/{made['id']}/retry", json=wanted)
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_a_job_is_retried_in_the_prepared_machine(api: Api, guest: Guest) -> None:
    version = (await pool(api))["version"]
    failed = await ended(api, await job(api, "one", "FAIL", env={"A": "1"}))
    assert (failed["retry_of"], failed["from_step"], failed["checkpoint_step"]) == (None, 0, None)
    again = await ended(api, await retry(api, failed))
    assert (again["state"], again["failed_step"], again["version"]) == ("failed", 1, version["id"])
    assert (again["retry_of"], again["from_step"], again["env"]) == (failed["id"], 0, ["A"])
    assert (guest.count("one"), guest.count("FAIL")) == (2, 2)
    assert snapshots(api) == [version["id"]], "a job that does not ask for checkpoints has none"
    refusal(await api.http.post(f"{JOBS}/{NOBODYS}/retry"), 404)
    theirs = await api.another("rival")
    refusal(await api.http.post(f"{JOBS}/{failed['id']}/retry", headers=theirs), 404)
    key = {"Idempotency-Key": "again"}
    made = [(await api.http.post(f"{JOBS}/{failed['id']}/retry", headers=key)).json()["id"] for _ in range(2)]
    assert made[0] == made[1]
    await ended(api, {"id": made[0]})


async def test_a_job_is_retried_from_the_step_that_failed(api: Api, guest: Guest) -> None:
    version = (await pool(api))["version"]["id"]
    failed = await ended(api, await job(api, "one", "two", "FAIL", "four", checkpoint=True))
    assert (failed["failed_step"], failed["checkpoint_step"]) == (2, 2)
    (checkpoint,) = set(snapshots(api)) - {version}
    body = refusal(await api.http.post(f"{JOBS}/{failed['id']}/retry", json={"from_step": 1}), 400)
    assert body["field"] == "from_step" and "0 or 2" in body["error"]
    assert refusal(await api.http.post(f"{JOBS}/{failed['id']}/retry", json={"from_step": -1}), 400)["field"]
    refreshed = (await api.http.post(f"{POOLS}/ci/refresh"), await prepared(api))[1]["version"]["id"]
    again = await retry(api, failed, from_step=2)
    last = await ended(api, again)
    assert (last["state"], last["failed_step"], last["version"]) == ("failed", 2, version)
    assert any(each.startswith(f"create {again['id']}") for each in api.engine.calls)
    assert (guest.count("one"), guest.count("two"), guest.count("FAIL")) == (1, 1, 2)
    assert last["checkpoint_step"] == 2, "a retry that fails can be retried as well"
    assert set(snapshots(api)) == {refreshed, checkpoint}
    assert (await api.http.delete(f"{JOBS}/{failed['id']}")).status_code == 204
    assert set(snapshots(api)) == {refreshed, checkpoint}
    assert (await api.http.delete(f"{JOBS}/{again['id']}")).status_code == 204
    assert snapshots(api) == [refreshed]


async def test_the_checkpoint_of_a_job_that_succeeds_is_gone(api: Api, guest: Guest) -> None:
    version = (await pool(api))["version"]["id"]
    last = await ended(api, await job(api, "one", "two", "three", checkpoint=True))
    assert (last["state"], last["checkpoint_step"]) == ("succeeded", None)
    assert snapshots(api) == [version]
    assert sum(each.startswith("snapshot") for each in api.engine.calls) == 3, "of the pool, and before two steps"


async def test_checkpoints_make_room(api: Api, guest: Guest) -> None:
    version = (await pool(api))["version"]["id"]
    runners_of(api).jobs._checkpoints._plane = with_settings(api, kept_job_checkpoints=2)
    made = [await ended(api, await job(api, "one", "FAIL", checkpoint=True)) for _ in range(3)]
    await until(lambda: len(snapshots(api)) == 3)
    steps = [(await api.http.get(f"{JOBS}/{each['id']}")).json()["checkpoint_step"] for each in made]
    assert steps == [None, 1, 1]
    assert (await api.http.delete(f"{POOLS}/ci")).status_code == 204
    assert snapshots(api) == [] and version not in snapshots(api)
    body = refusal(await api.http.post(f"{JOBS}/{made[2]['id']}/retry"), 409)
    assert "was deleted" in body["error"]


async def test_a_job_without_room_for_a_checkpoint_goes_on(api: Api, guest: Guest) -> None:
    await pool(api)
    api.engine.refusals["snapshot"] = CapacityError("full")
    made = await job(api, "one", "two", checkpoint=True)
    assert (await ended(api, made))["state"] == "succeeded"
    assert "no checkpoint before step 2: full" in printed(await log(api, f"{JOBS}/{made['id']}"), "stderr")


async def test_a_checkpoint_survives_a_killed_server_and_what_nobody_needs_does_not(
    serve: Serve, engine: ScriptedEngine, guest: Guest
) -> None:
    async with serve(engine) as api:
        version = (await pool(api))["version"]["id"]
        made = await job(api, "one", "WAIT", checkpoint=True)
        await until(lambda: guest.count("WAIT"))
        token = api.token
    async with serve(engine, token) as api:
        last = await ended(api, made)
        assert (last["state"], last["reason"], last["checkpoint_step"]) == ("error", "interrupted", 1)
        guest.go.set()
        assert (await ended(api, await retry(api, last, from_step=1)))["state"] == "succeeded"
        assert (guest.count("one"), guest.count("WAIT")) == (1, 2)
        plane: ControlPlane = api.app.state.plane
        async with plane.store.write() as connection:
            await connection.exec_driver_sql("UPDATE jobs SET checkpoint = NULL")
    async with serve(engine, token) as api:
        await until(lambda: snapshots(api) == [version])


async def test_an_input_cannot_be_retried(api: Api, guest: Guest) -> None:
    await pool(api)
    last = await ended(api, await job(api, "FAIL", stdin=base64.b64encode(b"x").decode()))
    assert "never stored" in refusal(await api.http.post(f"{JOBS}/{last['id']}/retry"), 409)["error"]
    running = await job(api, "WAIT")
    assert "cancel" in refusal(await api.http.post(f"{JOBS}/{running['id']}/retry"), 409)["hint"]


async def test_a_pool_is_refreshed_at_its_times_once_each(serve: Serve, engine: ScriptedEngine, guest: Guest) -> None:
    async with serve(engine) as api:
        made = await put(api, prepare=["make"], refresh="0  4 * * *", timezone="Asia/Tokyo")
        assert (made["refresh"], made["timezone"], made["state"]) == ("0 4 * * *", "Asia/Tokyo", "unprepared")
        assert made["next_refresh_at"].endswith("T19:00:00.000Z")
        assert (await put(api, prepare=["make"], refresh="0 4 * * *", timezone="Asia/Tokyo")) == made
        refreshing, record = refreshing_of(api), next(iter(runners_of(api).jobs._records.pools.values()))
        refreshing._clock = lambda: record.refresh_at - 1
        assert not await refreshing.refresh_due() and guest.count("make") == 0
        refreshing._clock = lambda: record.refresh_at
        assert not await refreshing.refresh_due()
        ready = await prepared(api)
        assert (ready["state"], guest.count("make")) == ("ready", 1)
        assert ready["next_refresh_at"] > made["next_refresh_at"]
        assert not await refreshing.refresh_due() and guest.count("make") == 1
        plane: ControlPlane = api.app.state.plane
        async with plane.store.write() as connection:  # three times pass while no server runs
            await connection.exec_driver_sql(f"UPDATE runner_pools SET refresh_at = {record.created_at - 3 * 86400}")
        token = api.token
    async with serve(engine, token) as api:
        await until(lambda: guest.count("make") == 2)
        assert (await prepared(api))["next_refresh_at"] <= ready["next_refresh_at"]
    async with serve(engine, token) as api:
        assert guest.count("make") == 2, "each time is for one refresh"
        assert (await put(api))["next_refresh_at"] is None


def refreshing_of(api: Api) -> Refreshing:
    runners = runners_of(api)
    return Refreshing(runners.jobs._records, runners.pools)


async def test_a_time_that_comes_while_a_pool_is_prepared_is_done_with(api: Api, guest: Guest) -> None:
    await put(api, prepare=["WAIT"], refresh="* * * * *")
    await api.http.post(f"{POOLS}/ci/refresh")
    await until(lambda: guest.count("WAIT"))
    refreshing = refreshing_of(api)
    (record,) = runners_of(api).jobs._records.pools.values()
    assert record.refresh_at is not None
    refreshing._clock = lambda: record.refresh_at + 1
    assert not await refreshing.refresh_due()
    guest.go.set()
    assert (await prepared(api))["state"] == "ready" and guest.count("WAIT") == 1


async def test_webhooks_are_told_of_jobs_that_have_ended(api: Api, guest: Guest) -> None:
    await pool(api)
    with receiving() as receiver:
        await api.http.post("/v1/webhooks", json={"url": receiver.url, "events": ["job.ended"]})
        made = await job(api, "FAIL")
        (message,) = [json.loads(each.body) for each in await receiver.until(1)]
    assert message["data"] | {"id": made["id"], "state": "failed", "exit_code": 7} == message["data"]


async def test_a_pool_runs_a_job_of_github(serve: Serve) -> None:
    with faking() as github:
        async with serve(ScriptedEngine(), settings={"github_api_url": github.url}) as api:
            guest = Guest(api.engine)
            await api.http.put("/v1/github/connection", json={"token": TOKEN})
            wanted = {"scope": REPOSITORY, "program": "/opt/WAIT"}
            made = await pool(api, labels=["self-hosted", "Linux"], github=wanted)
            assert made["github"] | wanted == made["github"]
            event = WorkflowJob("queued", REPOSITORY, 1, 7, ("self-hosted", "linux"), None, None)
            await api.app.state.plane.github.runners.handle(event, "default")
            await github.until(lambda _: guest.count("/opt/WAIT") == 1)
            shown = (await api.http.get(f"{POOLS}/ci")).json()["github"]
            assert (shown["runners"], shown["error"], len(github.names())) == (1, None, 1)
            (running,) = (await api.http.get(JOBS)).json()["jobs"]
            assert (running["trusted"], running["state"]) == (False, "running")
            assert guest.given[-1] and guest.given[-1].decode() not in json.dumps(running)
            assert (await api.http.delete(f"{POOLS}/ci")).status_code == 204
            await github.until(lambda fake: fake.names() == [])
            assert (await api.http.get(f"{JOBS}/{running['id']}")).json()["state"] == "cancelled"
            assert api.engine.machines == {}


async def test_a_pool_that_is_not_prepared_says_so_to_github(serve: Serve) -> None:
    with faking() as github:
        async with serve(ScriptedEngine(), settings={"github_api_url": github.url}) as api:
            Guest(api.engine)
            await api.http.put("/v1/github/connection", json={"token": TOKEN})
            await put(api, labels=["linux"], github={"scope": REPOSITORY})
            event = WorkflowJob("queued", REPOSITORY, 1, 7, ("linux",), None, None)
            await api.app.state.plane.github.runners.handle(event, "default")
            with anyio.fail_after(30):
                while not (shown := (await api.http.get(f"{POOLS}/ci")).json()["github"])["error"]:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
            assert "no prepared version" in shown["error"]
            await github.until(lambda fake: fake.names() == [])


@pytest.mark.parametrize(
    ("wanted", "labels", "field"),
    [
        ({"scope": "a/b/c"}, ["x"], "github.scope"),
        ({"scope": "octocat/app"}, [], "labels"),
        ({"scope": "octocat", "repositories": ["app"]}, ["x"], "github.repositories"),
        ({"scope": "octocat", "group_id": 0}, ["x"], "github.group_id"),
        ({"scope": "octocat", "program": "run.sh"}, ["x"], "github.program"),
    ],
)
async def test_a_pool_for_github_that_makes_no_sense(
    api: Api, guest: Guest, wanted: dict[str, Any], labels: list[str], field: str
) -> None:
    answer = await api.http.put(f"{POOLS}/ci", json={"labels": labels, "github": wanted})
    assert refusal(answer, 400)["field"] == field
