"""Databases over the API, against a scripted engine and a scripted database server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from sqlalchemy import text

from pandastack.contract.events import MachineContinued, MachineStalled
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDERR, STDOUT, Output, Record
from pandastack.contract.volumes import OwnVolume
from pandastack.errors import (
    BadRequestError,
    CapacityError,
    NotFoundError,
    ServerError,
    StorageFullError,
    UnavailableError,
)
from pandastack.model.caller import Caller
from pandastack.model.databases import DatabaseRoute
from pandastack.products.databases import Databases, dumps
from pandastack.products.databases import databases as product
from pandastack.products.databases.spec import DISK
from pandastack.services import ControlPlane
from pandastack.services.records.events import NewEvent
from pandastack.store import databases as table
from pandastack.store.databases import DatabaseRecord, DatabaseState
from tests.cluster.scripted_engine import ScriptedEngine, result
from tests.cluster.scripted_postgres import NUMBERS, WORK, ScriptedPostgres, message
from tests.cluster.scripted_postgres import refusal as sql_refusal
from tests.support.api import Api, Serve, refusal
from tests.support.receiver import receiving

pytestmark = pytest.mark.anyio

DATABASES = "/v1/databases"
SERVER = Caller.server("default")
DF = "Filesystem 1024-blocks Used Available Capacity Mounted on\n"


@pytest.fixture
async def api(serve: Serve) -> AsyncIterator[Api]:
    async with serve(ScriptedEngine()) as api:
        yield api


def plane_of(api: Api) -> ControlPlane:
    plane: ControlPlane = api.app.state.plane
    return plane


def databases_of(api: Api) -> Databases:
    databases: Databases = api.app.state.databases
    return databases


@pytest.fixture
def postgres(api: Api) -> ScriptedPostgres:
    databases_of(api).announced(5432)
    return ScriptedPostgres(api.engine)


async def ready(api: Api, database_id: str, status: str = "running") -> dict[str, Any]:
    with anyio.fail_after(10):
        while True:
            body: dict[str, Any] = (await api.http.get(f"{DATABASES}/{database_id}")).json()
            if body["status"] == status:
                return body
            await anyio.sleep(0.01)


async def database(api: Api, **wanted: Any) -> dict[str, Any]:
    made = await api.http.post(DATABASES, json=wanted)
    assert made.status_code == 202, made.text
    assert made.json()["status"] in ("provisioning", "running") and "password" not in made.json()
    return await ready(api, made.json()["id"])


async def settled(api: Api) -> None:
    """Wait until nothing is done in the background."""
    tasks = databases_of(api)._tasks
    with anyio.fail_after(10):
        for _ in range(1000):
            if not tasks._tasks:  # type: ignore[attr-defined]
                return
            await anyio.sleep(0.01)


def fits(password: str, verifier: str) -> bool:
    """Whether a server that has ``verifier`` lets ``password`` in."""
    method, parameters, keys = verifier.split("$")
    iterations, salt = parameters.split(":")
    stored, server = (base64.b64decode(each) for each in keys.split(":"))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    client = hmac.digest(salted, b"Client Key", "sha256")
    return (
        method == "SCRAM-SHA-256"
        and hashlib.sha256(client).digest() == stored
        and hmac.digest(salted, b"Server Key", "sha256") == server
    )


async def test_the_life_of_a_database(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api, label="orders")
    one = f"{DATABASES}/{made['id']}"
    url = urlsplit(made["connection_url"])
    assert (url.scheme, url.username, url.path) == ("postgres", "pandastack", "/pandastack")
    assert (url.hostname, url.port, url.password) == (f"{made['id']}.localhost", 5432, made["password"])
    assert made["broker_token"].startswith("pds_pg_") and len(made["broker_token"]) == 39
    assert made | {"created_at": "", "password": "", "connection_url": "", "broker_token": ""} == {
        "id": made["id"],
        "status": "running",
        "template": "postgres",
        "label": "orders",
        "created_at": "",
        "host": f"{made['id']}.localhost",
        "port": 5432,
        "database": "pandastack",
        "username": "pandastack",
        "password": "",
        "connection_url": "",
        "broker_url": f"http://api/v1/databases/{made['id']}/proxy",
        "broker_token": "",
        "failover_available": False,
        "failover_reason": "this server has one node",
        "sandbox_id": made["id"],
        "size": "1g",
        "disk_gb": 10,
        "disk_state": "full",  # as it is said of a disk of one MB
        "disk_used_pct": 25.0,
        "always_on": False,
    }
    assert fits(made["password"], postgres.passwords[made["id"]])
    shown, hidden = (await api.http.get(DATABASES)).json(), {"password", "connection_url", "broker_token"}
    hidden |= {"disk_state", "disk_used_pct"}
    assert shown == [{key: text for key, text in made.items() if key not in hidden}]
    connection = await api.http.get(f"{one}/connection")
    assert connection.json() == {name: made[name] for name in ("connection_url", "broker_url", "broker_token")}
    sandbox = (await api.http.get(f"/v1/sandboxes/{made['id']}")).json()
    assert sandbox["persistent"] is True and sandbox["metadata"]["database"] == made["id"]
    assert (await api.http.delete(one)).status_code == 204
    for answer in (await api.http.get(one), await api.http.delete(one), await api.http.get(f"{one}/connection")):
        refusal(answer, 404)
    assert (await api.http.get(DATABASES)).json() == [] == (await api.http.get("/v1/sandboxes")).json()
    assert await plane_of(api).secrets.owned("default", "databases") == []


async def test_the_machine_cannot_be_deleted_by_itself(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api)
    body = refusal(await api.http.delete(f"/v1/sandboxes/{made['id']}"), 409)
    assert body["hint"] == f"use /v1/databases/{made['id']} instead"
    refusal(await api.http.post(f"/v1/sandboxes/{made['id']}/exec", json={"cmd": "id"}), 409)
    assert (await ready(api, made["id"])) == made


async def test_the_operator_asks_in_a_place_that_tenants_cannot_change(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api)
    names = {"user": "postgres", "database": "postgres", "search_path": "pg_catalog", "application_name": "pandastack"}
    names["default_transaction_read_only"] = "off"  # passwords are set also while the disk is full
    assert [{key: each[key] for key in names} for each in postgres.startup] == [names]
    assert postgres.asked == [(made["id"], word) for word in ("ALTER", "rolpassword")]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"size": "2g"}, "size"),
        ({"size": 4}, "size"),
        ({"size": "1G"}, "size"),
        ({"label": "x" * 129}, "label"),
        ({"label": "a\nb"}, "label"),
        ({"label": 1}, "label"),
        ({"always_on": "yes"}, "always_on"),
        ({"always_on": 1}, "always_on"),
    ],
)
async def test_what_is_not_a_database_is_refused_before_it_is_made(
    api: Api, postgres: ScriptedPostgres, body: dict[str, Any], field: str
) -> None:
    assert refusal(await api.http.post(DATABASES, json=body), 400)["field"] == field
    assert (api.engine.machines, (await api.http.get(DATABASES)).json()) == ({}, [])


async def test_fields_that_mean_nothing_here_are_ignored(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api, cpu=8, memory_mb=1, label="x" * 128, size=None, always_on=None)
    assert (made["size"], made["always_on"]) == ("1g", False)


async def test_each_size_has_its_template(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api, size="4g", always_on=True)
    assert (made["size"], made["template"], made["always_on"]) == ("4g", "postgres-4g", True)
    machine = plane_of(api).registry.get(made["id"])
    assert (machine.template, machine.always_on) == ("postgres-4g", True)
    assert (await databases_of(api).route(made["id"])).max_connections == 197
    body = refusal(await api.http.post(DATABASES, json={"size": "16g"}), 503)
    assert "template postgres-16g" in body["error"] and body["hint"].endswith("pandastack template build postgres-16g")


@pytest.mark.parametrize(("error", "status"), [(CapacityError("no memory"), 503), (StorageFullError("no space"), 507)])
async def test_what_the_host_cannot_hold_leaves_nothing(
    api: Api, postgres: ScriptedPostgres, error: ServerError, status: int
) -> None:
    api.engine.refusals["create"] = error
    refusal(await api.http.post(DATABASES, json={}), status)
    assert (await api.http.get(DATABASES)).json() == [] == (await api.http.get("/v1/sandboxes")).json()
    assert await plane_of(api).secrets.owned("default", "databases") == []
    api.engine.refusals.clear()
    await database(api)


async def test_without_a_gateway_there_are_no_databases(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "_DOOR_SECONDS", 0.01)
    ScriptedPostgres(api.engine)
    body = refusal(await api.http.post(DATABASES, json={}), 503)
    assert "--postgres-port" in body["hint"] and api.engine.machines == {}
    monkeypatch.setattr(product, "_DOOR_SECONDS", 5.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database, api)
        await anyio.sleep(0.05)
        databases_of(api).announced(5432)


async def api_status(api: Api, database_id: str) -> str:
    found = (await api.http.get(f"{DATABASES}/{database_id}")).json()
    assert "connection_url" not in found and "port" not in found
    refusal(await api.http.get(f"{DATABASES}/{database_id}/connection"), 503)
    return str(found["status"])


async def test_without_the_template_there_are_no_databases(api: Api) -> None:
    databases_of(api).announced(5432)
    body = refusal(await api.http.post(DATABASES, json={}), 503)
    assert "template postgres" in body["error"] and "template build postgres" in body["hint"]
    assert (await api.http.get(DATABASES)).json() == []


async def test_a_server_that_starts_is_waited_for(api: Api, postgres: ScriptedPostgres) -> None:
    postgres.answers = [sql_refusal("57P03"), b"", sql_refusal("57P01")]
    made = await database(api)
    assert fits(made["password"], postgres.passwords[made["id"]]) and len(postgres.startup) == 4


@pytest.mark.parametrize(
    "answer",
    [
        sql_refusal("28000"),
        message(b"R", b"\0\0\0\3"),
        message(b"X", b""),
        b"D\0\0\0\1",
        b"D\xff\xff\xff\xff",
        message(b"D", b"\0\2\0\0\0\1") + message(b"Z", b"I"),
        message(b"D", b"\0\1\x7f\0\0\0") + message(b"Z", b"I"),
        message(b"N", b"x" * 200_000) * 40,
    ],
)
async def test_a_server_that_answers_nonsense_fails_the_database(
    api: Api, postgres: ScriptedPostgres, answer: bytes
) -> None:
    postgres.answers = [answer] * 3
    made = await api.http.post(DATABASES, json={"label": "x"})
    failed = await ready(api, made.json()["id"], "failed")
    assert "database server" in failed["error"] and "connection_url" not in failed
    assert api.engine.machines == {}
    refusal(await api.http.get(f"{DATABASES}/{failed['id']}/connection"), 503)
    for what in ("wake", "clone", "reset-credentials"):
        refusal(await api.http.post(f"{DATABASES}/{failed['id']}/{what}"), 409)
    with pytest.raises(NotFoundError):
        await databases_of(api).route(failed["id"])
    assert (await api.http.delete(f"{DATABASES}/{failed['id']}")).status_code == 204


async def test_an_error_that_nobody_expected_ends_one_database(
    api: Api, postgres: ScriptedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = await database(api)
    with monkeypatch.context() as patched:
        patched.setattr(plane_of(api).interior, "connect", None)
        made = await api.http.post(DATABASES, json={})
        assert "the server failed" in (await ready(api, made.json()["id"], "failed"))["error"]
    with monkeypatch.context() as patched:
        patched.setattr(plane_of(api).forks, "copy", None)
        refusal(await api.http.post(f"{DATABASES}/{good['id']}/clone"), 500)
    assert await ready(api, good["id"]) == good


async def test_a_password_that_was_not_taken_is_never_shown(api: Api, postgres: ScriptedPostgres) -> None:
    postgres.takes_passwords = False
    made = await api.http.post(DATABASES, json={})
    assert "has not taken" in (await ready(api, made.json()["id"], "failed"))["error"]


async def test_a_database_that_is_being_made_is_not_ready(api: Api, postgres: ScriptedPostgres) -> None:
    postgres.answers = [sql_refusal("57P03")] * 1000
    made = (await api.http.post(DATABASES, json={})).json()
    one = f"{DATABASES}/{made['id']}"
    assert (made["status"], (await api.http.get(one)).json()["status"]) == ("provisioning", "provisioning")
    refusal(await api.http.get(f"{one}/connection"), 503)
    refusal(await api.http.get(f"{one}/stats"), 503)
    refusal(await api.http.post(f"{one}/clone"), 409)
    with pytest.raises(UnavailableError):
        await databases_of(api).route(made["id"])
    assert (await api.http.delete(one)).status_code == 204
    assert api.engine.machines == {} and (await api.http.get(DATABASES)).json() == []


async def test_a_copy_has_another_password_and_no_sessions(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api, label="orders")
    copied = await api.http.post(f"{DATABASES}/{made['id']}/clone", json={})
    assert copied.status_code == 202, copied.text
    branch = await ready(api, copied.json()["id"])
    assert (branch["cloned_from"], branch["label"], branch["size"]) == (made["id"], "orders (clone)", "1g")
    assert not fits(made["password"], postgres.passwords[branch["id"]])
    assert fits(branch["password"], postgres.passwords[branch["id"]])
    assert (branch["id"], "terminate") in postgres.asked
    again = await api.http.post(f"{DATABASES}/{branch['id']}/clone", json={"label": "third", "size": "1g"})
    third = await ready(api, again.json()["id"])
    assert (third["label"], third["cloned_from"]) == ("third", branch["id"])
    record = plane_of(api).registry.get(third["id"])
    assert (record.product, record.persistent) == ("database", True)
    assert (await api.http.delete(f"{DATABASES}/{made['id']}")).status_code == 204
    assert await ready(api, branch["id"]) == branch
    assert (await ready(api, third["id"]))["password"] == third["password"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"target_time": "yesterday"}, 400, "target_time"),
        ({"target_time": "2026-02-30T00:00:00Z"}, 400, "target_time"),
        ({"target_time": "2026-01-01T00:00:00"}, 400, "target_time"),
        ({"target_time": 5}, 400, "target_time"),
        ({"target_time": "2026-01-01T00:00:00Z"}, 501, "target_time"),
        ({"target_time": "2026-01-01T00:00:00.123+02:00"}, 501, "target_time"),
        ({"size": "9g"}, 400, "size"),
        ({"size": "4g"}, 501, "size"),
        ({"label": "x" * 129}, 400, "label"),
    ],
)
async def test_copies_that_are_not_made(
    api: Api, postgres: ScriptedPostgres, body: dict[str, Any], status: int, field: str
) -> None:
    made = await database(api)
    refused = refusal(await api.http.post(f"{DATABASES}/{made['id']}/clone", json=body), status)
    assert refused["field"] == field
    assert [each["id"] for each in (await api.http.get(DATABASES)).json()] == [made["id"]]


async def test_a_copy_of_a_copy_with_the_longest_label(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api, label="x" * 128)
    copied = await api.http.post(f"{DATABASES}/{made['id']}/clone")
    assert copied.json()["label"] == "x" * 120 + " (clone)"


async def test_a_copy_that_the_host_cannot_hold_leaves_nothing(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api)
    api.engine.refusals["fork"] = StorageFullError("no space")
    refusal(await api.http.post(f"{DATABASES}/{made['id']}/clone"), 507)
    assert [each["id"] for each in (await api.http.get(DATABASES)).json()] == [made["id"]]
    assert list(api.engine.machines) == [made["id"]]


async def test_other_credentials_end_every_session(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api)
    postgres.asked.clear()
    answer = await api.http.post(f"{DATABASES}/{made['id']}/reset-credentials")
    renewed = answer.json()
    assert answer.status_code == 200 and renewed["status"] == "running"
    assert renewed["password"] != made["password"] and renewed["password"] in renewed["connection_url"]
    assert fits(renewed["password"], postgres.passwords[made["id"]])
    assert [word for _, word in postgres.asked] == ["ALTER", "terminate", "rolpassword"]
    assert await ready(api, made["id"]) == renewed


async def test_a_reset_that_fails_is_finished_by_the_next_server(serve: Serve) -> None:
    async with serve(ScriptedEngine()) as api:
        databases_of(api).announced(5432)
        postgres = ScriptedPostgres(api.engine)
        made = await database(api)
        postgres.takes_passwords = False
        refusal(await api.http.post(f"{DATABASES}/{made['id']}/reset-credentials"), 500)
        assert (await ready(api, made["id"]))["password"] == made["password"]
        postgres.takes_passwords = True
        engine, token = api.engine, api.token
        async with serve(engine, token) as again:
            databases_of(again).announced(5432)
            await settled(again)
            renewed = await ready(again, made["id"])
            assert renewed["password"] != made["password"]
            assert fits(renewed["password"], postgres.passwords[made["id"]])


async def test_one_that_sleeps_is_woken_and_shows_its_address(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api)
    one = f"{DATABASES}/{made['id']}"
    await plane_of(api).lifecycle.hibernate(SERVER, made["id"])
    asleep = (await api.http.get(one)).json()
    room = {"disk_state": made["disk_state"], "disk_used_pct": made["disk_used_pct"]}
    assert asleep | room == made | {"status": "hibernated"}
    assert not asleep.keys() & room.keys()
    assert (await api.http.get(f"{one}/connection")).json()["connection_url"] == made["connection_url"]
    for look in ("stats", "logs"):
        assert "wake" in refusal(await api.http.get(f"{one}/{look}"), 503)["hint"]
    assert await databases_of(api).route(made["id"]) == DatabaseRoute(made["id"], 5432, 97)
    assert api.engine.machines[made["id"]].state == "hibernated"
    woken = await api.http.post(f"{one}/wake")
    assert (woken.status_code, woken.json()) == (202, {"id": made["id"], "status": "waking"})
    assert await ready(api, made["id"]) == made
    assert (await api.http.post(f"{one}/wake")).json()["detail"] == "it runs already"


async def test_always_on_is_changed_and_wakes(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api)
    one = f"{DATABASES}/{made['id']}"
    await plane_of(api).lifecycle.hibernate(SERVER, made["id"])
    changed = await api.http.patch(one, json={"always_on": True})
    assert changed.json() == made | {"always_on": True}
    assert plane_of(api).registry.get(made["id"]).always_on is True
    assert (await api.http.patch(one, json={})).json()["always_on"] is True
    assert (await api.http.patch(one, json={"always_on": False})).json()["always_on"] is False
    assert refusal(await api.http.patch(one, json={"always_on": "no"}), 400)["field"] == "always_on"
    assert plane_of(api).registry.get(made["id"]).always_on is False


async def test_its_disk_grows(api: Api, postgres: ScriptedPostgres) -> None:
    api.engine.template_volumes = (OwnVolume(DISK, 10240),)
    made = await database(api)
    one = f"{DATABASES}/{made['id']}"
    assert made["disk_gb"] == 10
    await plane_of(api).lifecycle.hibernate(SERVER, made["id"])
    for wrong in (9, 0, -1, 1025, 10**30, "much", 12.5, True):
        assert refusal(await api.http.patch(one, json={"disk_gb": wrong}), 400)["field"] == "disk_gb", wrong
    assert (await ready(api, made["id"], "hibernated"))["disk_gb"] == 10
    grown = await api.http.patch(one, json={"disk_gb": 20})
    assert grown.json() == made | {"disk_gb": 20}, "it was woken"
    assert api.engine.volumes.grown[made["id"]] == OwnVolume(DISK, 20480)
    assert "20 GiB" in refusal(await api.http.patch(one, json={"disk_gb": 10}), 400)["error"]
    both = await api.http.patch(one, json={"disk_gb": 20, "always_on": True})
    assert both.json() == made | {"disk_gb": 20, "always_on": True}
    copy = await ready(api, (await api.http.post(f"{one}/clone")).json()["id"])
    assert copy["disk_gb"] == 20
    api.engine.template_volumes = ()
    assert (await database(api, size="4g"))["disk_gb"] == 40


async def test_a_disk_that_does_not_grow(api: Api, postgres: ScriptedPostgres) -> None:
    api.engine.template_volumes = (OwnVolume(DISK, 10240),)
    made = await database(api)
    one = f"{DATABASES}/{made['id']}"
    detail = {"reason": "provisioned", "fs_free_bytes": 1}
    api.engine.refusals["grow_own"] = StorageFullError("insufficient host storage for volume", detail=detail)
    full = refusal(await api.http.patch(one, json={"disk_gb": 20}), 507)
    assert full["detail"] == detail and await ready(api, made["id"]) == made
    api.engine.refusals.clear()
    small = replace(plane_of(api).settings, max_volume_mb=15 * 1024)
    plane_of(api).own_volumes._leases._settings = small
    quota = refusal(await api.http.patch(one, json={"disk_gb": 16}), 429)
    assert quota["detail"] == {"used_mb": 10240, "wanted_mb": 6144, "max_mb": 15360}
    assert (await api.http.patch(one, json={"disk_gb": 15})).json()["disk_gb"] == 15
    await databases_of(api)._records.change(databases_of(api).find(SERVER, made["id"]), state=DatabaseState.FAILED)
    refusal(await api.http.patch(one, json={"disk_gb": 15}), 409)


async def test_numbers_and_log(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api)
    one = f"{DATABASES}/{made['id']}"
    numbers = (await api.http.get(f"{one}/stats")).json()
    idle = numbers.pop("idle_seconds")
    assert numbers.pop("sleeps_in_seconds") == 300 - idle and 0 <= idle < 60
    assert numbers == {
        "postgres_version": "16.14",
        "db_size_bytes": 7_000_000,
        "connections": 3,
        "max_connections": 100,
        "uptime_seconds": 60,
        "cache_hit_ratio": 0.99,
        "disk_size_bytes": 1_024_000,
        "disk_used_bytes": 256_000,
        "disk_avail_bytes": 768_000,
        "disk_used_pct": 25.0,
        "running_queries": 2,
        "open_transactions": 1,
        "wal_bytes": 0x3000060,
        "archive_lag_bytes": None,
        "awake_because": ["query"],
    }
    await api.http.patch(one, json={"always_on": True})
    postgres.numbers = (*NUMBERS[:7], "1", NUMBERS[8], "0", "1", "1")
    on = (await api.http.get(f"{one}/stats")).json()
    assert on["sleeps_in_seconds"] is None
    assert on["awake_because"] == ["always_on", "autovacuum", "replication", "base_backup"]
    assert 'pandastack_databases{status="running"} 1.0' in (await api.http.get("/metrics")).text
    whole = (await api.http.get(f"{one}/logs")).json()["logs"]
    assert whole.splitlines() == [f"LOG:  line {number}" for number in range(30)]
    assert (await api.http.get(f"{one}/logs?lines=10")).json()["logs"].splitlines() == whole.splitlines()[-10:]
    api.engine.logs["service-postgres"] = b"x" * (1 << 20) + b"\xff\nlast\n"
    assert (await api.http.get(f"{one}/logs")).json()["logs"].endswith("x\ufffd\nlast\n")
    assert len((await api.http.get(f"{one}/logs")).content) < 600_000
    api.engine.logs.clear()
    refusal(await api.http.get(f"{one}/logs"), 502)
    for wrong in ("9", "2001", "x", "-1", "1e3"):
        assert refusal(await api.http.get(f"{one}/logs?lines={wrong}"), 400)["field"] == "lines"
    postgres.numbers = (*NUMBERS[:5], None, *NUMBERS[6:])
    assert (await api.http.get(f"{one}/stats")).json()["cache_hit_ratio"] is None
    for place, wrong in ((1, "x"), (1, "-1"), (1, "9" * 30), (5, "nan"), (8, "x"), (9, "y")):
        postgres.numbers = (*NUMBERS[:place], wrong, *NUMBERS[place + 1 :])
        refusal(await api.http.get(f"{one}/stats"), 502)
    postgres.numbers, postgres.disk = NUMBERS, "df: no\n"
    refusal(await api.http.get(f"{one}/stats"), 502)


async def metrics(api: Api, database_id: str) -> dict[str, float]:
    """The series with the id of a database."""
    lines = (await api.http.get("/metrics")).text.splitlines()
    label = f'{{database="{database_id}"}}'
    found = dict(each.split(label) for each in lines if label in each)
    return {name.removeprefix("pandastack_database_"): float(number) for name, number in found.items()}


async def test_metrics_of_each_database(api: Api, postgres: ScriptedPostgres) -> None:
    made, looks = await database(api), databases_of(api).looks
    assert await metrics(api, made["id"]) == {"awake": 1}
    await looks.take()
    seen = {
        "awake": 1,
        "connections": 3,
        "size_bytes": 7_000_000,
        "cache_hit_ratio": 0.99,
        "wal_bytes_total": 0x3000060,
    }
    assert await metrics(api, made["id"]) == seen
    shown = (await api.http.get(f"{DATABASES}/{made['id']}/stats")).json()
    assert (shown["connections"], shown["db_size_bytes"], shown["cache_hit_ratio"]) == (3, 7_000_000, 0.99)
    postgres.numbers = ("nonsense",)
    await looks.take()
    assert await metrics(api, made["id"]) == seen, "one that talks nonsense keeps what it had"
    await plane_of(api).lifecycle.hibernate(SERVER, made["id"])
    asked = len(postgres.asked)
    await looks.take()
    asleep = {"awake": 0, "size_bytes": 7_000_000, "wal_bytes_total": 0x3000060}
    assert await metrics(api, made["id"]) == asleep and len(postgres.asked) == asked
    assert api.engine.machines[made["id"]].state == "hibernated"
    await api.http.delete(f"{DATABASES}/{made['id']}")
    assert await metrics(api, made["id"]) == {}


async def test_a_server_that_works_by_itself_does_not_sleep_yet(api: Api, postgres: ScriptedPostgres) -> None:
    made, looks = await database(api), databases_of(api).looks
    machine = plane_of(api).registry.get(made["id"])
    for work, expected in ((WORK, False), (("1", "0", "0"), True), (("0", "1", "0"), True), (("0", "0", "1"), True)):
        postgres.work = work
        assert await looks.is_at_work(machine) is expected, work
    for nonsense in ((), ("x", "0", "0"), ("-1", "0", "0")):
        postgres.work = nonsense
        assert not await looks.is_at_work(machine), "one that does not say sleeps"
    postgres.answers = [sql_refusal("57P03")]
    assert not await looks.is_at_work(machine)


@pytest.mark.parametrize(
    ("free", "more", "state", "used"),
    [
        (2_000_000, "", "ok", 80.0),
        (1_000_000, "", "nearly_full", 90.0),
        (40_000, "", "full", 99.6),
        (150_000, "read-only\n", "read_only", 98.5),
    ],
)
async def test_whether_its_disk_has_room(
    api: Api, postgres: ScriptedPostgres, free: int, more: str, state: str, used: float
) -> None:
    size = 10_000_000
    postgres.disk = f"{DF}/dev/vdb {size} {size - free} {free} 1% /var/lib/postgresql\n{more}"
    made = await database(api)
    assert (made["disk_state"], made["disk_used_pct"]) == (state, used)
    asked = len(postgres.commands)
    assert (await api.http.get(f"{DATABASES}/{made['id']}")).json() == made
    assert len(postgres.commands) == asked, "a look serves for some seconds"
    assert "disk_state" not in (await api.http.get(DATABASES)).json()[0]


@pytest.mark.parametrize(
    "given", ["", "df: no\n", f"{DF}x 1 2\n", f"{DF}x 1 -2 3 4% /\n", f"{DF}x 1 {1 << 70} 3 4% /\n"]
)
async def test_a_disk_that_nobody_knows_of(api: Api, postgres: ScriptedPostgres, given: str) -> None:
    postgres.disk = given
    made = await database(api)
    assert made["status"] == "running" and "disk_state" not in made and "disk_used_pct" not in made


async def test_a_machine_that_waits_for_room_on_the_host(api: Api, postgres: ScriptedPostgres) -> None:
    postgres.disk = ""  # what a machine that stands still prints
    made, seen = await database(api), list[str | None]()
    for event in (MachineStalled, MachineContinued):
        await plane_of(api).registry.note(made["id"], NewEvent(event.KIND))
        databases_of(api)._disks.forget(databases_of(api).find(SERVER, made["id"]))
        seen.append((await api.http.get(f"{DATABASES}/{made['id']}")).json().get("disk_state"))
    assert seen == ["waiting", None]


async def test_there_is_no_other_node(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api)
    refusal(await api.http.post(f"{DATABASES}/{made['id']}/failover"), 501)


async def test_another_workspace_sees_nothing(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api)
    other = await api.another("other")
    one = f"{DATABASES}/{made['id']}"
    assert (await api.http.get(DATABASES, headers=other)).json() == []
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("GET", "/connection"),
        ("GET", "/stats"),
        ("GET", "/logs"),
        ("POST", "/wake"),
        ("POST", "/clone"),
        ("POST", "/reset-credentials"),
        ("POST", "/failover"),
    ):
        theirs = await api.http.request(method, one + path, headers=other)
        unknown = await api.http.request(method, f"{DATABASES}/{'0' * 36}{path}", headers=other)
        assert refusal(theirs, 404) == refusal(unknown, 404) | {"error": f"database not found: {made['id']}"}
    assert await ready(api, made["id"]) == made


async def test_a_workspace_has_so_many_databases(api: Api, postgres: ScriptedPostgres) -> None:
    records = databases_of(api)._records
    for place in range(20):
        record = DatabaseRecord(f"d{place}", "default", "", "1g", DatabaseState.FAILED, 1.0)
        records._records[record.id] = record
    body = refusal(await api.http.post(DATABASES, json={}), 429)
    assert "PANDASTACK_MAX_DATABASES" in body["hint"] and api.engine.machines == {}


async def test_a_machine_that_died_is_told(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api)
    await plane_of(api).registry.move(
        plane_of(api).registry.get(made["id"]),
        "failed",
        reason="its machine died",  # type: ignore[arg-type]
    )
    failed = await ready(api, made["id"], "failed")
    assert failed["error"] == "its machine died"
    refusal(await api.http.get(f"{DATABASES}/{made['id']}/connection"), 503)


async def test_the_port_is_that_of_the_door(api: Api, postgres: ScriptedPostgres) -> None:
    made = await database(api)
    databases_of(api).announced(6432)
    assert urlsplit((await ready(api, made["id"]))["connection_url"]).port == 6432


async def test_what_was_interrupted_is_finished(serve: Serve) -> None:
    engine = ScriptedEngine()
    async with serve(engine) as api:
        databases_of(api).announced(5432)
        postgres = ScriptedPostgres(engine)
        made = await database(api)
        failing = await database(api)
        postgres.answers = [sql_refusal("57P03")] * 1000
        half = (await api.http.post(DATABASES, json={"label": "half"})).json()
        engine.refusals["delete"] = ServerError("cannot")
        refusal(await api.http.delete(f"{DATABASES}/{failing['id']}"), 500)
        refusal(await api.http.get(f"{DATABASES}/{failing['id']}"), 404)
        token = api.token
        async with plane_of(api).store.write() as connection:
            new = DatabaseRecord("b" * 8 + "-0000-4000-8000-" + "0" * 12, "default", "new", "1g", "provisioning", 9.0)  # type: ignore[arg-type]
            await table.add(connection, new)
            lost = replace(new, id="c" + new.id[1:], cloned_from="nowhere")
            await table.add(connection, lost)
    engine.refusals.clear()
    postgres.answers.clear()
    async with serve(engine, token) as again:
        assert (await api_status(again, made["id"])) == "waking"
        databases_of(again).announced(5432)
        assert await ready(again, made["id"]) == made
        finished = await ready(again, half["id"])
        assert fits(finished["password"], postgres.passwords[half["id"]])
        assert (await ready(again, new.id))["label"] == "new"
        assert "sandbox not found" in (await ready(again, lost.id, "failed"))["error"]
        await settled(again)
        assert failing["id"] not in engine.machines


async def test_a_repeated_create_makes_one(api: Api, postgres: ScriptedPostgres) -> None:
    first, second = [
        await api.http.post(DATABASES, json={"label": "x"}, headers={"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert first.json() == second.json() and len(api.engine.machines) == 1
    assert second.headers["Idempotency-Replayed"] == "true"


async def test_a_create_whose_answer_was_lost_is_found_again(api: Api, postgres: ScriptedPostgres) -> None:
    key = {"Idempotency-Key": "k"}
    made = (await api.http.post(DATABASES, json={"label": "x"}, headers=key)).json()
    async with plane_of(api).store.write() as connection:
        await connection.execute(text("UPDATE idempotency_keys SET status = NULL, answer = NULL"))
    await ready(api, made["id"])
    again = await api.http.post(DATABASES, json={"label": "x"}, headers=key)
    assert again.status_code == 202 and again.json()["id"] == made["id"] and "password" not in again.json()
    copies = [await api.http.post(f"{DATABASES}/{made['id']}/clone", headers={"Idempotency-Key": "c"}) for _ in "12"]
    assert copies[0].json() == copies[1].json() and len(api.engine.machines) == 2


async def test_an_export_is_streamed_and_one_that_fails_says_why(
    api: Api, postgres: ScriptedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumps, "_HELD_BACK", 5)
    made = await database(api)
    one = f"{DATABASES}/{made['id']}/export"
    pieces = [b"xxx", b"yyy", b"zzz"]
    outcome: list[Record | bytes] = [result()]

    async def run(spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        postgres.commands.append(spec.cmd)
        for each in pieces:
            yield Output(STDOUT, each)
        for last in outcome:
            yield last

    api.engine.exec_records = run
    answer = await api.http.get(one)
    assert answer.content == b"".join(pieces) and answer.headers["content-type"] == "application/vnd.postgresql.dump"
    assert " pg_dump --format=custom " in postgres.commands[-1]
    assert (await api.http.get(f"{one}?format=plain")).headers["content-type"].startswith("application/sql")
    outcome[:] = [Output(STDERR, b"pg_dump: error: it broke\n"), result(1)]
    record, taken = databases_of(api).find(SERVER, made["id"]), b""
    with pytest.raises(BadRequestError, match="it broke"):  # over HTTP, the connection is aborted
        async with databases_of(api).dumps.export(record, None, dumps.Format.CUSTOM) as chunks:
            async for chunk in chunks:
                taken += chunk
    assert taken == b"".join(pieces)
    pieces.clear()
    assert refusal(await api.http.get(one), 400)["error"] == "pg_dump: error: it broke"
    assert refusal(await api.http.get(f"{one}?format=tar"), 400)["field"] == "format"
    assert refusal(await api.http.get(f"{one}?database={'x' * 64}"), 400)["field"] == "database"
    refusal(await api.http.post(f"{DATABASES}/{made['id']}/import", content=b"SELECT 1"), 400)
    refusal(await api.http.get(f"{DATABASES}/00000000-0000-4000-8000-000000000000/export"), 404)
    assert not databases_of(api).dumps._running


async def test_a_reset_gives_a_copy_the_data_of_its_source(api: Api, postgres: ScriptedPostgres) -> None:
    source = await database(api, label="source")
    copied = (await api.http.post(f"{DATABASES}/{source['id']}/clone", json={})).json()
    copy = await ready(api, copied["id"])
    await api.http.patch(f"{DATABASES}/{copy['id']}", json={"always_on": True})
    await plane_of(api).lifecycle.hibernate(SERVER, source["id"])
    before = len(api.engine.calls)
    answer = await api.http.post(f"{DATABASES}/{copy['id']}/reset")
    assert (answer.status_code, answer.json()["status"]) == (202, "provisioning")
    assert await ready(api, copy["id"]) == copy | {"always_on": True}
    await settled(api)
    done = [each for each in api.engine.calls[before:] if each.split()[0] in ("wake", "delete", "fork")]
    assert [each.split()[0] for each in done] == ["wake", "delete", "fork"], api.engine.calls[before:]
    assert fits(copy["password"], postgres.passwords[copy["id"]])
    assert plane_of(api).registry.get(copy["id"]).always_on is True
    refusal(await api.http.post(f"{DATABASES}/{source['id']}/reset"), 409)


async def test_a_reset_that_is_refused_changes_nothing(api: Api, postgres: ScriptedPostgres) -> None:
    source = await database(api)
    copy = await ready(api, (await api.http.post(f"{DATABASES}/{source['id']}/clone", json={})).json()["id"])
    await plane_of(api).lifecycle.hibernate(SERVER, source["id"])
    api.engine.refusals["wake"] = CapacityError("no memory")
    assert (await api.http.post(f"{DATABASES}/{copy['id']}/reset")).status_code >= 500
    assert await ready(api, copy["id"]) == copy
    api.engine.refusals.clear()
    await api.http.delete(f"{DATABASES}/{source['id']}")
    assert source["id"] in refusal(await api.http.post(f"{DATABASES}/{copy['id']}/reset"), 409)["error"]
    assert await ready(api, copy["id"]) == copy
    refusal(await api.http.post(f"{DATABASES}/{source['id']}/reset"), 404)


async def test_a_reset_without_room_can_be_repeated(api: Api, postgres: ScriptedPostgres) -> None:
    source = await database(api)
    copy = await ready(api, (await api.http.post(f"{DATABASES}/{source['id']}/clone", json={})).json()["id"])
    api.engine.refusals["fork"] = StorageFullError("no space")
    assert (await api.http.post(f"{DATABASES}/{copy['id']}/reset")).status_code == 202
    assert "no space" in (await ready(api, copy["id"], "failed"))["error"]
    api.engine.refusals.clear()
    assert (await api.http.post(f"{DATABASES}/{copy['id']}/reset")).status_code == 202
    assert await ready(api, copy["id"]) == copy


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_reset_that_a_kill_interrupts_is_finished_or_undone(serve: Serve, deleted: bool) -> None:
    async with serve(ScriptedEngine()) as api:
        databases_of(api).announced(5432)
        ScriptedPostgres(api.engine)
        source = await database(api)
        copy = await ready(api, (await api.http.post(f"{DATABASES}/{source['id']}/clone", json={})).json()["id"])
        record = databases_of(api).find(SERVER, copy["id"])
        await databases_of(api)._records.change(record, state=DatabaseState.PROVISIONING)
        if deleted:
            await plane_of(api).sandboxes.delete(SERVER, copy["id"])
        async with serve(api.engine, api.token) as again:
            databases_of(again).announced(5432)
            assert await ready(again, copy["id"]) == copy
            assert set(api.engine.machines) == {source["id"], copy["id"]}


async def test_webhooks_are_told_when_it_is_ready_and_when_it_is_gone(api: Api, postgres: ScriptedPostgres) -> None:
    with receiving() as receiver:
        await api.http.post("/v1/webhooks", json={"url": receiver.url, "events": ["database.*"]})
        made = await database(api, label="orders")
        assert (await api.http.delete(f"{DATABASES}/{made['id']}")).status_code == 204
        messages = [json.loads(each.body) for each in await receiver.until(2)]
    assert [each["type"] for each in messages] == ["database.ready", "database.deleted"]
    assert messages[0]["data"] == {"id": made["id"], "label": "orders", "size": "1g", "error": None}
    assert not any(made["password"] in each.body.decode() for each in receiver.received)


async def test_webhooks_are_told_of_a_failure_and_of_nothing_that_was_never_there(
    api: Api, postgres: ScriptedPostgres
) -> None:
    with receiving() as receiver:
        await api.http.post("/v1/webhooks", json={"url": receiver.url, "events": ["database.*"]})
        api.engine.refusals["create"] = CapacityError("full")
        assert (await api.http.post(DATABASES, json={})).status_code == 503
        api.engine.refusals.clear()
        postgres.answers = [sql_refusal("28000")] * 3
        made = await api.http.post(DATABASES, json={})
        await ready(api, made.json()["id"], "failed")
        (message,) = [json.loads(each.body) for each in await receiver.until(1)]
    assert message["type"] == "database.failed" and message["data"]["error"]
