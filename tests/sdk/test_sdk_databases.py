"""What the client library sends about databases, and what it makes of the answers."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest

from pandastack import AsyncClient, BadRequestError, Client, DatabaseFailedError, ServerError
from tests.sdk.wire_server import Reply, WireServer

MAKING: dict[str, Any] = {"id": "d1", "status": "provisioning", "label": "x"}
RUNNING: dict[str, Any] = {
    **MAKING,
    "status": "running",
    "connection_url": "postgres://pandastack:p@d1.localhost:5432/x",
}
ONE = "/v1/databases/d1"


def test_a_create_waits_until_it_can_be_used(client: Client, wire: WireServer) -> None:
    half = {**RUNNING, "connection_url": ""}
    wire.will(Reply(202, MAKING), Reply(200, MAKING), Reply(200, half), Reply(200, RUNNING))
    assert client.databases.create(label="x", size="4g", always_on=True) == RUNNING
    assert wire.lines == ["POST /v1/databases", *[f"GET {ONE}"] * 3]
    assert wire.asked[0].json() == {"label": "x", "size": "4g", "always_on": True}
    assert wire.asked[0].headers.get("Idempotency-Key")


@pytest.mark.parametrize("status", ["failed", "error"])
def test_one_that_fails_is_an_error_with_its_record(client: Client, wire: WireServer, status: str) -> None:
    failed = {**MAKING, "status": status, "error": "no disk"}
    wire.will(Reply(202, MAKING), Reply(200, failed))
    with pytest.raises(DatabaseFailedError, match="no disk") as raised:
        client.databases.create()
    assert raised.value.database == failed and isinstance(raised.value, RuntimeError)


def test_one_that_takes_too_long(client: Client, wire: WireServer) -> None:
    wire.will(Reply(202, MAKING), Reply(200, MAKING))
    with pytest.raises(TimeoutError, match="d1 is not ready after 0 s, but provisioning"):
        client.databases.create(timeout=0)


def test_requests_about_one(client: Client, wire: WireServer) -> None:
    wire.will(Reply(200, [MAKING]), *[Reply(200, RUNNING)] * 2, Reply(202, MAKING), *[Reply(200, RUNNING)] * 2)
    wire.will(Reply(200, {"logs": "a\n"}), Reply(200, {"logs": "b\n"}), Reply(204))
    assert client.databases.list() == [MAKING]
    assert client.databases.get("d1") == RUNNING
    client.databases.update("d1", always_on=False, disk_gb=20)
    assert client.databases.wake("d1") == MAKING
    assert client.databases.reset_credentials("d1") == RUNNING
    assert client.databases.connection("d1")["connection_url"] == RUNNING["connection_url"]
    assert client.databases.logs("d1") == "a\n"
    assert client.databases.logs("d1", 50) == "b\n"
    assert client.databases.delete("d1") is None
    assert wire.lines == [
        "GET /v1/databases",
        f"GET {ONE}",
        f"PATCH {ONE}",
        f"POST {ONE}/wake",
        f"POST {ONE}/reset-credentials",
        f"GET {ONE}/connection",
        f"GET {ONE}/logs",
        f"GET {ONE}/logs?lines=50",
        f"DELETE {ONE}",
    ]
    assert wire.asked[2].json() == {"always_on": False, "disk_gb": 20}


def test_a_copy_waits_unless_it_should_not(client: Client, wire: WireServer) -> None:
    copy = {**RUNNING, "id": "d2", "cloned_from": "d1"}
    wire.will(Reply(202, {**MAKING, "id": "d2"}), Reply(200, copy), Reply(202, {**MAKING, "id": "d3"}))
    assert client.databases.clone("d1", label="b") == copy
    assert client.databases.clone("d1", wait=False, idempotency_key="mine")["status"] == "provisioning"
    assert wire.lines == [f"POST {ONE}/clone", "GET /v1/databases/d2", f"POST {ONE}/clone"]
    assert [wire.asked[0].json(), wire.asked[2].json()] == [{"label": "b"}, {}]
    assert wire.asked[2].headers.get("Idempotency-Key") == "mine"


def test_what_is_not_supported(client: Client, wire: WireServer) -> None:
    wire.will(*[Reply(501, {"error": "one node", "code": "not_supported"})] * 2)
    with pytest.raises(BadRequestError) as refused:
        client.databases.failover("d1")
    assert refused.value.status_code == 501
    with pytest.raises(BadRequestError):
        client.databases.clone("d1", target_time="2026-01-01T00:00:00Z")
    assert wire.asked[1].json() == {"target_time": "2026-01-01T00:00:00Z"}


def test_numbers_of_one_that_sleeps(client: Client, wire: WireServer) -> None:
    wire.will(Reply(503, {"error": "database d1 is hibernated", "code": "unavailable"}))
    with pytest.raises(ServerError, match="hibernated"):
        client.databases.stats("d1")


async def test_the_waiting_client_does_the_same(async_client: AsyncClient, wire: WireServer) -> None:
    wire.will(Reply(202, MAKING), Reply(200, MAKING), Reply(200, RUNNING), Reply(200, [RUNNING]))
    async with async_client as client:
        assert await client.databases.create() == RUNNING
        assert await client.databases.list() == [RUNNING]


def test_earlier_states(client: Client, wire: WireServer) -> None:
    kept = {"archive": {"state": "archiving", "size_bytes": 9}, "windows": [], "bases": []}
    wire.will(Reply(201, kept), Reply(200, kept), *[Reply(202, MAKING), Reply(200, RUNNING)] * 2)
    assert client.databases.backup("d1") == client.databases.backups("d1") == kept
    assert client.databases.restore("d1", target_time="2026-01-01T00:00:00Z", size="4g") == RUNNING
    client.databases.restore("d1", label="now")
    assert wire.lines[:3] == [f"POST {ONE}/backups", f"GET {ONE}/backups", f"POST {ONE}/clone"]
    assert wire.asked[2].json() == {"target_time": "2026-01-01T00:00:00Z", "size": "4g"}
    now = wire.asked[4].json()
    assert now["label"] == "now" and datetime.fromisoformat(now["target_time"]) <= datetime.now(UTC)


def test_statements_over_http(client: Client, wire: WireServer) -> None:
    rows = {"columns": [{"name": "a", "type": "int4"}], "rows": [[1]], "count": 1, "truncated": False}
    wire.will(Reply(200, rows), Reply(200, {"rows_affected": 3, "duration_ms": 1.5}), Reply(200, {"results": [rows]}))
    wire.will(Reply(400, {"error": "no", "code": "sql_error", "detail": {"sqlstate": "42601"}}))
    assert client.databases.query("d1", "SELECT $1::int", [1], read_only=True, max_rows=5, timeout=1.5) == rows
    assert client.databases.execute("d1", "DELETE FROM x", database="other") == 3
    assert client.databases.transaction("d1", ["SELECT 1", ("SELECT $1", [2])]) == [rows]
    with pytest.raises(BadRequestError) as wrong:
        client.databases.query("d1", "SELEC")
    assert (wrong.value.detail, wrong.value.status_code) == ({"sqlstate": "42601"}, 400)
    assert wire.lines == [f"POST {ONE}/proxy/v1/{what}" for what in ("query", "exec", "transaction", "query")]
    first, second, third = (each.json() for each in wire.asked[:3])
    assert first == {
        "sql": "SELECT $1::int",
        "params": [1],
        "read_only": True,
        "max_rows": 5,
        "timeout_ms": 1500,
        "database": "pandastack",
    }
    assert second == {"sql": "DELETE FROM x", "params": [], "database": "other"}
    assert third["statements"] == [{"sql": "SELECT 1", "params": []}, {"sql": "SELECT $1", "params": [2]}]


def test_dumps(client: Client, wire: WireServer) -> None:
    wire.will(Reply(200, b"PGDMP..."), Reply(204), Reply(400, {"error": "relation exists", "code": "bad_request"}))
    into = io.BytesIO()
    client.databases.export("d1", into, database="other", plain=True)
    assert into.getvalue() == b"PGDMP..."
    client.databases.import_("d1", io.BytesIO(b"x" * 600_000), clean=True)
    with pytest.raises(BadRequestError, match="relation exists"):
        client.databases.import_("d1", io.BytesIO(b"PGDMP"))
    assert wire.lines == [
        f"GET {ONE}/export?format=plain&database=other",
        f"POST {ONE}/import?clean=1",
        f"POST {ONE}/import",
    ]
    assert wire.asked[1].body == b"x" * 600_000


def test_a_reset_waits_unless_it_should_not(client: Client, wire: WireServer) -> None:
    wire.will(Reply(202, MAKING), Reply(200, RUNNING), Reply(202, MAKING))
    assert client.databases.reset("d1") == RUNNING
    assert client.databases.reset("d1", wait=False) == MAKING
    assert wire.lines == [f"POST {ONE}/reset", f"GET {ONE}", f"POST {ONE}/reset"]
