"""The query broker over the API: a scripted engine, whose guests' sockets lead to a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from pandastack.api import requests
from pandastack.api.requests import limited
from pandastack.products.databases import Databases
from pandastack.products.databases.query import broker
from pandastack.products.databases.query.spec import MOST_SQL
from pandastack.services import ControlPlane
from tests.cluster.scripted_engine import ScriptedEngine
from tests.cluster.scripted_postgres import ScriptedPostgres
from tests.cluster.scripted_postgres import refusal as sql_refusal
from tests.support import postgres as server
from tests.support.api import Api, Serve, refusal

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(server.missing() is not None, reason=str(server.missing())),
]


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with server.serving() as directory:
        server.make_database(directory, "pandastack")
        yield directory


class Broker:
    """A database, and its query broker."""

    def __init__(self, api: Api, postgres: ScriptedPostgres, database: dict[str, Any]) -> None:
        self.api, self.postgres, self.id, self.database = api, postgres, database["id"], database
        self.url = database["broker_url"]
        self.token: str | None = database["broker_token"]

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        request = self.api.http.build_request(method, f"{self.url}{path}", **more)
        del request.headers["authorization"]
        if self.token is not None:
            request.headers["authorization"] = f"Bearer {self.token}"
        return await self.api.http.send(request)

    async def query(self, sql: str, *params: Any, **more: Any) -> httpx.Response:
        body = {"database": "pandastack", "sql": sql, "params": params, **more}
        return await self.ask("POST", "/v1/query", json=body)

    async def rows(self, sql: str, *params: Any, **more: Any) -> Any:
        answer = await self.query(sql, *params, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()["rows"]


@pytest.fixture
async def api(serve: Serve) -> AsyncIterator[Api]:
    async with serve(ScriptedEngine()) as api:
        yield api


async def made(api: Api, postgres: ScriptedPostgres) -> Broker:
    databases: Databases = api.app.state.databases
    databases.announced(5432)
    database = (await api.http.post("/v1/databases", json={})).json()
    return Broker(api, postgres, await ready(api, database["id"]))


async def ready(api: Api, database_id: str) -> dict[str, Any]:
    with anyio.fail_after(10):
        while True:
            found: dict[str, Any] = (await api.http.get(f"/v1/databases/{database_id}")).json()
            if found["status"] == "running":
                return found
            await anyio.sleep(0.01)


@pytest.fixture
async def broker_of(api: Api, directory: Path) -> Broker:
    postgres = ScriptedPostgres(api.engine)
    postgres.directory = directory
    return await made(api, postgres)


async def test_a_query(broker_of: Broker) -> None:
    answer = await broker_of.query("SELECT $1::int AS n, 'ä' AS t", 5)
    body = answer.json()
    assert body.pop("duration_ms") > 0 and answer.headers["content-type"] == "application/json"
    assert body == {
        "columns": [{"name": "n", "type": "int4"}, {"name": "t", "type": "text"}],
        "rows": [[5, "ä"]],
        "count": 1,
        "truncated": False,
        "rows_affected": 1,
    }
    assert broker_of.postgres.startup[-1]["user"] == "pandastack"
    cut = (await broker_of.query("SELECT generate_series(1, 20000)")).json()
    assert (cut["count"], cut["truncated"], cut["rows"][-1], cut["rows_affected"]) == (10000, True, [10000], None)
    assert await broker_of.rows("SELECT generate_series(1, 5)", max_rows=2) == [[1], [2]]


async def test_changes(broker_of: Broker) -> None:
    async def execute(sql: str, *params: Any) -> int:
        body = {"database": "pandastack", "sql": sql, "params": params}
        answer = await broker_of.ask("POST", "/v1/exec", json=body)
        assert answer.status_code == 200, answer.text
        assert set(answer.json()) == {"rows_affected", "duration_ms"}
        return int(answer.json()["rows_affected"])

    assert await execute("CREATE TEMP TABLE gone (x int)") == 0
    assert await execute("CREATE TABLE kept (x int)") == 0
    assert await execute("INSERT INTO kept SELECT generate_series(1, 3)") == 3
    assert await execute("UPDATE kept SET x = x + $1 WHERE x > 1", 1) == 2
    assert await broker_of.rows("SELECT x FROM kept ORDER BY x") == [[1], [3], [4]]
    assert (await broker_of.query("SELECT * FROM gone")).json()["detail"]["sqlstate"] == "42P01"


async def test_a_transaction(broker_of: Broker) -> None:
    sql = ["CREATE TABLE paid (x int)", "INSERT INTO paid VALUES (1)", "SELECT x FROM paid"]
    body = {"database": "pandastack", "statements": [{"sql": each} for each in sql]}
    answer = await broker_of.ask("POST", "/v1/transaction", json=body)
    results = answer.json()["results"]
    assert [each["rows_affected"] for each in results] == [None, 1, 1] and results[2]["rows"] == [[1]]
    body["statements"] = [{"sql": "INSERT INTO paid VALUES ($1)", "params": [2]}, {"sql": "SELECT 1/0"}]
    refused = refusal(await broker_of.ask("POST", "/v1/transaction", json=body), 400)
    assert refused["detail"] == {"sqlstate": "22012", "statement": 1} and "division by zero" in refused["error"]
    assert await broker_of.rows("SELECT x FROM paid") == [[1]]
    body["statements"] = [{"sql": "SELECT 1"}] * 101
    assert refusal(await broker_of.ask("POST", "/v1/transaction", json=body), 400)["field"] == "statements"


async def test_the_token_is_the_databases_own(broker_of: Broker, api: Api) -> None:
    other = await made(api, broker_of.postgres)
    right = broker_of.token
    for token in (None, "", "x", "pds_x", other.token, broker_of.database["password"]):
        broker_of.token = token
        answer = await broker_of.query("SELECT 1")
        assert refusal(answer, 401)["code"] == "unauthorized" and answer.headers["www-authenticate"] == "Bearer"
    broker_of.token = api.token
    assert await broker_of.rows("SELECT 1") == [[1]]
    broker_of.token = (await api.another("acme"))["authorization"].removeprefix("Bearer ")
    refusal(await broker_of.query("SELECT 1"), 404)
    broker_of.token = right
    refusal(await api.http.get("/v1/databases", headers={"authorization": f"Bearer {right}"}), 401)
    broker_of.url = broker_of.url.replace(broker_of.id, "00000000-0000-4000-8000-000000000000")
    refusal(await broker_of.query("SELECT 1"), 401)
    refusal(await broker_of.ask("GET", "/v1/health"), 404)


async def test_too_many_wrong_tokens_of_a_peer(broker_of: Broker, api: Api) -> None:
    right, broker_of.token = broker_of.token, "wrong"
    for _ in range(1000):
        answer = await broker_of.ask("GET", "/v1/info")
        if answer.status_code != 401:
            break
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
    broker_of.token = right


async def test_other_credentials_are_another_token(broker_of: Broker, api: Api) -> None:
    renewed = (await api.http.post(f"/v1/databases/{broker_of.id}/reset-credentials")).json()
    assert renewed["broker_token"] != broker_of.token
    refusal(await broker_of.query("SELECT 1"), 401)
    broker_of.token = renewed["broker_token"]
    assert await broker_of.rows("SELECT 1") == [[1]]
    copy = await ready(api, (await api.http.post(f"/v1/databases/{broker_of.id}/clone")).json()["id"])
    assert copy["broker_token"] not in (renewed["broker_token"], "") and copy["id"] in copy["broker_url"]


@pytest.mark.parametrize(
    ("body", "field", "status"),
    [
        ({"sql": "SELECT 1"}, "database", 400),
        ({"database": "pandastack"}, "sql", 400),
        ({"database": "pandastack", "sql": 5}, "sql", 400),
        ({"database": "pandastack", "sql": "SELECT 1", "params": {}}, "params", 400),
        ({"database": "pandastack", "sql": "SELECT 1", "timeout_ms": 30001}, "timeout_ms", 400),
        ({"database": "pandastack", "sql": "SELECT 1", "read_only": "yes"}, "read_only", 400),
        ({"database": "nowhere", "sql": "SELECT 1"}, "database", 404),
    ],
)
async def test_what_is_no_query(broker_of: Broker, body: dict[str, Any], field: str, status: int) -> None:
    assert refusal(await broker_of.ask("POST", "/v1/query", json=body), status)["field"] == field


async def test_the_length_of_sql(broker_of: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "limited", lambda request, _: limited(request, 8 * MOST_SQL))
    sql = "SELECT 1" + " " * (MOST_SQL - 8)
    assert await broker_of.rows(sql) == [[1]]
    assert refusal(await broker_of.query(sql + " "), 413)["field"] == "sql"


async def test_databases_of_a_server(broker_of: Broker) -> None:
    async def listed() -> list[str]:
        found = (await broker_of.ask("GET", "/v1/databases")).json()["databases"]
        assert all(each["owner"] == "pandastack" and each["size_bytes"] > 1 << 20 for each in found)
        return [each["name"] for each in found]

    name = 'odd"name ä'
    added = await broker_of.ask("POST", "/v1/databases", json={"name": name})
    assert (added.status_code, added.json()) == (201, {"name": name})
    assert await listed() == [name, "pandastack"]
    again = await broker_of.ask("POST", "/v1/databases", json={"name": name})
    assert refusal(again, 409)["field"] == "name"
    assert await broker_of.rows("SELECT current_database()", database=name) == [[name]]
    assert (await broker_of.ask("DELETE", "/v1/databases/odd%22name%20%C3%A4")).status_code == 204
    refusal(await broker_of.ask("DELETE", "/v1/databases/odd"), 404)
    assert refusal(await broker_of.ask("DELETE", "/v1/databases/pandastack"), 409)["field"] == "name"
    assert refusal(await broker_of.ask("POST", "/v1/databases", json={}), 400)["field"] == "name"
    assert await listed() == ["pandastack"]


async def test_what_it_says_of_itself(broker_of: Broker) -> None:
    info = (await broker_of.ask("GET", "/v1/info")).json()
    assert info["version"][0].isdigit() and (info["database"], info["max_rows"]) == ("pandastack", 10000)
    for path in ("", "/", "/v1", "/v1/query/x", "/v2/query"):
        refusal(await broker_of.ask("GET", path), 404)
    broker_of.token = None
    assert (await broker_of.ask("GET", "/v1/health")).json() == {"status": "ok"}
    refusal(await broker_of.ask("GET", "/v1"), 401)


async def test_one_that_sleeps_is_woken_by_a_query_and_not_by_health(broker_of: Broker, api: Api) -> None:
    plane: ControlPlane = api.app.state.plane
    record = plane.registry.get(broker_of.id)
    await plane.lifecycle.hibernate(broker.Caller.server(record.workspace), record.id)
    assert (await broker_of.ask("GET", "/v1/health")).status_code == 200
    assert plane.registry.get(broker_of.id).status == "hibernated"
    refusal(await broker_of.ask("POST", "/v1/query", json={"database": "pandastack"}), 400)
    assert plane.registry.get(broker_of.id).status == "hibernated"
    assert await broker_of.rows("SELECT 1") == [[1]]
    assert plane.registry.get(broker_of.id).status == "running"


async def test_a_server_that_starts_is_waited_for(broker_of: Broker) -> None:
    broker_of.postgres.answers = [sql_refusal("57P03"), b"", sql_refusal("57P01")]
    assert await broker_of.rows("SELECT 1") == [[1]]
    broker_of.postgres.answers = [sql_refusal("53300")]
    assert refusal(await broker_of.query("SELECT 1"), 503)["detail"] == {"sqlstate": "53300"}
    broker_of.postgres.answers = [b"D\0\0\0\1"]
    refusal(await broker_of.query("SELECT 1"), 502)


async def test_a_session_that_ends_in_the_middle(broker_of: Broker) -> None:
    body = refusal(await broker_of.query("SELECT pg_terminate_backend(pg_backend_pid())"), 503)
    assert body["detail"] == {"sqlstate": "57P01"}
    assert await broker_of.rows("SELECT 1") == [[1]]


async def test_requests_take_turns(broker_of: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "_WAIT_SECONDS", 0.05)
    async with anyio.create_task_group() as tasks:
        for _ in range(broker.SESSIONS):
            tasks.start_soon(broker_of.query, "SELECT pg_sleep(600)")
        with anyio.fail_after(20):
            while (await broker_of.query("SELECT 1")).status_code != 503:
                pass
        tasks.cancel_scope.cancel()
    assert await broker_of.rows("SELECT 1") == [[1]]


async def test_nothing_is_held_after_an_answer(broker_of: Broker, api: Api) -> None:
    plane: ControlPlane = api.app.state.plane
    await broker_of.rows("SELECT repeat('x', 1000) FROM generate_series(1, 100)")
    await broker_of.query("SELECT repeat('x', 100000), 1/(g - 50) FROM generate_series(1, 100) g")
    await broker_of.ask("GET", "/v1/databases")
    await broker_of.ask("POST", "/v1/exec", json={"database": "pandastack", "sql": "SELECT 1"})
    assert plane.output_budget._total == 0 and not plane.output_budget._held
