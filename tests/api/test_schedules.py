"""Schedules over HTTP, with functions that a test ends."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pandastack.products.schedules import open_schedules
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.api import Api, Serve, refusal
from tests.support.functions import Functions

pytestmark = pytest.mark.anyio

WANTED = {"name": "nightly", "function_id": "f", "cron": "0 3 * * *"}
UNKNOWN = "/v1/schedules/00000000-0000-4000-8000-000000000000"


@pytest.fixture
def functions() -> Functions:
    return Functions(f=3, unready=0)


@pytest.fixture
async def api(serve: Serve, functions: Functions) -> AsyncIterator[Api]:
    async with (
        serve(ScriptedEngine()) as api,
        open_schedules(api.app.state.plane, functions) as api.app.state.schedules,
    ):
        yield api


async def test_the_life_of_a_schedule(api: Api, functions: Functions) -> None:
    answer = await api.http.post("/v1/schedules", json={**WANTED, "timezone": "Europe/Berlin", "overlap": "queue"})
    assert answer.status_code == 200
    made = answer.json()
    one = f"/v1/schedules/{made['id']}"
    assert {**made, **WANTED, "timezone": "Europe/Berlin", "overlap": "queue", "catchup": "none"} == made
    assert (made["paused"], made["jitter_seconds"], len(made["next_runs"])) == (False, 0, 5)
    assert made["next_run_at"] == made["next_runs"][0] and "last_run_at" not in made
    assert (await api.http.get(one)).json() == made
    listed = (await api.http.get("/v1/schedules")).json()
    assert listed == [{key: value for key, value in made.items() if key != "next_runs"}]
    run = (await api.http.post(f"{one}/trigger", json={})).json()
    assert (run["id"], run["schedule_id"], run["version"], run["triggered"]) == (run["run_id"], made["id"], 3, True)
    await functions.wait_begun(1)
    assert [each["run_id"] for each in (await api.http.get(f"{one}/runs")).json()] == [run["run_id"]]
    paused = (await api.http.patch(one, json={"paused": True})).json()
    assert (paused["paused"], paused["next_runs"], "next_run_at" in paused) == (True, [], False)
    assert (await api.http.patch(one, json={"paused": False, "cron": "*/5 * * * *"})).json()["cron"] == "*/5 * * * *"
    assert (await api.http.delete(one)).status_code == 204
    refusal(await api.http.get(one), 404)


async def test_a_schedule_is_made_once_with_a_key(api: Api) -> None:
    made = [await api.http.post("/v1/schedules", json=WANTED, headers={"idempotency-key": "k"}) for _ in range(2)]
    assert made[0].json() == made[1].json() and made[1].headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cron": "0 0 31 2 *"}, "cron"),
        ({"cron": None}, "cron"),
        ({"timezone": "Mars/Base"}, "timezone"),
        ({"overlap": "replace"}, "overlap"),
        ({"catchup": "all"}, "catchup"),
        ({"jitter_seconds": True}, "jitter_seconds"),
        ({"jitter_seconds": 3601}, "jitter_seconds"),
        ({"paused": "yes"}, "paused"),
        ({"name": ""}, "name"),
        ({"function_id": "none"}, "function_id"),
        ({"function_id": ""}, "function_id"),
    ],
)
async def test_a_request_that_makes_no_sense_names_the_field(api: Api, change: dict[str, object], field: str) -> None:
    assert refusal(await api.http.post("/v1/schedules", json={**WANTED, **change}), 400)["field"] == field
    assert (await api.http.get("/v1/schedules")).json() == []


async def test_what_is_refused(api: Api, functions: Functions) -> None:
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/trigger"), ("GET", "/runs")):
        refusal(await api.http.request(method, f"{UNKNOWN}{path}", json={}), 404)
    made = (await api.http.post("/v1/schedules", json=WANTED)).json()
    assert refusal(await api.http.post("/v1/schedules", json=WANTED), 400)["field"] == "name"
    functions.versions["f"] = 0
    refusal(await api.http.post(f"/v1/schedules/{made['id']}/trigger"), 409)
    outsider = await api.another("other")
    refusal(await api.http.get(f"/v1/schedules/{made['id']}", headers=outsider), 404)
    assert (await api.http.get("/v1/schedules", headers=outsider)).json() == []


async def test_a_server_without_functions(serve: Serve) -> None:
    async with serve(ScriptedEngine()) as api:
        assert refusal(await api.http.post("/v1/schedules", json=WANTED), 400)["field"] == "function_id"
