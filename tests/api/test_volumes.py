"""Volumes over the API."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from pandastack.errors import QuotaError, StorageFullError
from tests.support.api import UNKNOWN, Api, refusal

pytestmark = pytest.mark.anyio

VOLUMES, SANDBOXES = "/v1/volumes", "/v1/sandboxes"


async def volume(api: Api, name: str = "data", **more: Any) -> dict[str, Any]:
    made = await api.http.post(VOLUMES, json={"name": name, **more})
    assert made.status_code == 201, made.text
    body: dict[str, Any] = made.json()
    return body


async def sandbox(api: Api, *volumes: dict[str, Any]) -> dict[str, Any]:
    made = await api.http.post(SANDBOXES, json={"template": "base", "volumes": list(volumes)})
    assert made.status_code == 201, made.text
    body: dict[str, Any] = made.json()
    return body


async def test_the_life_of_a_volume(api: Api) -> None:
    made = await volume(api)
    assert {**made, "created_at": ""} == {
        "name": "data",
        "size_mb": 256,
        "created_at": "",
        "kind": "volume",
        "state": "ready",
        "attached_to": [],
        "size_bytes": 4096,
    }
    assert (await api.http.get(VOLUMES)).json() == [made]
    assert (await api.http.get(f"{VOLUMES}/data")).json() == made
    grown = await api.http.post(f"{VOLUMES}/data/grow", json={"size_mb": 512})
    assert (grown.status_code, grown.json()) == (200, {**made, "size_mb": 512})
    assert (await api.http.delete(f"{VOLUMES}/data")).status_code == 204
    for answer in (
        await api.http.get(f"{VOLUMES}/data"),
        await api.http.delete(f"{VOLUMES}/data"),
        await api.http.post(f"{VOLUMES}/data/grow", json={"size_mb": 512}),
    ):
        refusal(answer, 404)
    assert (await api.http.get(VOLUMES)).json() == []


async def test_a_sandbox_shows_its_volumes_and_a_volume_its_sandboxes(api: Api) -> None:
    await volume(api, "a")
    await volume(api, "b")
    made = await sandbox(api, {"name": "b"}, {"name": "a", "read_only": True, "path": "/srv/a"})
    assert made["volumes"] == [
        {"name": "b", "path": "/mnt/b", "read_only": False},
        {"name": "a", "path": "/srv/a", "read_only": True},
    ]
    found = (await api.http.get(f"{VOLUMES}/a")).json()
    assert found["attached_to"] == [{"sandbox_id": made["id"], "path": "/srv/a", "read_only": True}]
    assert (await sandbox(api))["volumes"] == []


async def test_a_volume_in_use_names_its_holder(api: Api) -> None:
    await volume(api)
    holder = await sandbox(api, {"name": "data"})
    again = await api.http.post(SANDBOXES, json={"template": "base", "volumes": [{"name": "data"}]})
    body = refusal(again, 409)
    assert holder["id"] in body["error"] and body["field"] == "volumes.0.name"
    assert body["detail"] == {"sandbox_ids": [holder["id"]]}
    assert "retry-after" not in again.headers
    assert holder["id"] in refusal(await api.http.delete(f"{VOLUMES}/data"), 409)["error"]
    await sandbox(api, {"name": "data", "read_only": True})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": None}, "name"),
        ({"name": 7}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": ".."}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "a", "size_mb": 0}, "size_mb"),
        ({"name": "a", "size_mb": True}, "size_mb"),
        ({"name": "a", "size_mb": 1.5}, "size_mb"),
        ({"name": "a", "size_mb": 65537}, "size_mb"),
        ({"name": "a", "size_mb": 10**30}, "size_mb"),
        ({"name": "a", "from": "b"}, "from"),
        ({"name": "a", "from": {}}, "from"),
        ({"name": "a", "from": {"volume": "b", "sandbox": "c", "mount": "/d"}}, "from"),
        ({"name": "a", "from": {"sandbox": "c"}}, "from"),
        ({"name": "a", "from": {"mount": "/c"}}, "from"),
        ({"name": "a", "from": {"volume": "../b"}}, "from.volume"),
        ({"name": "a", "from": {"sandbox": "c", "mount": "d"}}, "from.mount"),
        ({"name": "a", "kind": "snapshot"}, "from"),
        ({"name": "a", "kind": "tape"}, "kind"),
    ],
)
async def test_bad_input_names_its_field(api: Api, body: dict[str, Any], field: str) -> None:
    answer = refusal(await api.http.post(VOLUMES, json=body), 400)
    assert answer["field"] == field
    assert api.engine.volumes.disks == {}


@pytest.mark.parametrize(
    ("volumes", "status", "field"),
    [
        ("data", 400, "volumes"),
        (["data"], 400, "volumes.0"),
        ([{}], 400, "volumes.0.name"),
        ([{"name": ".."}], 400, "volumes.0.name"),
        ([{"name": "none"}], 400, "volumes.0.name"),
        ([{"name": "data", "read_only": "no"}], 400, "volumes.0.read_only"),
        ([{"name": "data", "path": 7}], 400, "volumes.0.path"),
        ([{"name": "data", "path": "mnt"}], 400, "volumes.0.path"),
        ([{"name": "data", "path": "/mnt/../etc"}], 400, "volumes.0.path"),
        ([{"name": "data"}, {"name": "data", "read_only": True}], 400, "volumes.1.name"),
        ([{"name": f"v{n}"} for n in range(15)], 400, "volumes"),
    ],
)
async def test_bad_volumes_of_a_create_name_their_field(api: Api, volumes: Any, status: int, field: str) -> None:
    await volume(api)
    before = list(api.engine.calls)
    answer = await api.http.post(SANDBOXES, json={"template": "base", "volumes": volumes})
    assert refusal(answer, status)["field"] == field
    assert api.engine.calls == before
    assert (await api.http.get(SANDBOXES)).json() == []


async def test_a_create_from_a_snapshot_takes_no_volumes(api: Api) -> None:
    body = {"from_snapshot": UNKNOWN.rpartition("/")[2], "volumes": [{"name": "data"}]}
    assert refusal(await api.http.post(SANDBOXES, json=body), 400)["field"] == "volumes"


async def test_clones_and_snapshots(api: Api) -> None:
    await volume(api, size_mb=512)
    snapshot = await volume(api, "kept", kind="snapshot", **{"from": {"volume": "data"}})
    assert (snapshot["kind"], snapshot["size_mb"]) == ("snapshot", 512)
    assert (await volume(api, "copy", size_mb=1024, **{"from": {"volume": "kept"}}))["kind"] == "volume"
    holder = await sandbox(api, {"name": "copy"})
    mounted = {"sandbox": holder["id"], "mount": "/mnt/copy"}
    assert (await volume(api, "saved", **{"from": mounted}))["size_mb"] == 1024
    missing = {"name": "none", "from": {"sandbox": UNKNOWN.rpartition("/")[2], "mount": "/mnt/copy"}}
    refusal(await api.http.post(VOLUMES, json=missing), 404)
    body = {"name": "none", "from": {**mounted, "mount": "/mnt/none"}}
    assert refusal(await api.http.post(VOLUMES, json=body), 404)["field"] == "from.mount"


async def test_another_workspace_sees_nothing_of_them(api: Api) -> None:
    await volume(api)
    holder = await sandbox(api, {"name": "data"})
    headers = await api.another("rival")
    assert (await api.http.get(VOLUMES, headers=headers)).json() == []
    wanted = {"name": "copy", "from": {"sandbox": holder["id"], "mount": "/mnt/data"}}
    create = {"template": "base", "volumes": [{"name": "data", "read_only": True}]}
    refused = refusal(await api.http.post(SANDBOXES, json=create, headers=headers), 400)
    create["volumes"] = [{"name": "none", "read_only": True}]
    unknown = refusal(await api.http.post(SANDBOXES, json=create, headers=headers), 400)
    assert refused == {**unknown, "error": unknown["error"].replace("none", "data")}, "as one that nobody has"
    for answer in (
        await api.http.get(f"{VOLUMES}/data", headers=headers),
        await api.http.delete(f"{VOLUMES}/data", headers=headers),
        await api.http.post(f"{VOLUMES}/data/grow", json={"size_mb": 512}, headers=headers),
        await api.http.post(VOLUMES, json=wanted, headers=headers),
        await api.http.post(VOLUMES, json={**wanted, "from": {"volume": "data"}}, headers=headers),
    ):
        assert holder["id"] not in refusal(answer, 404)["error"].replace(f"not found: {holder['id']}", "")


async def test_a_repeated_create_makes_one_volume(api: Api) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await api.http.post(VOLUMES, json={"name": "data"}, headers=headers)
    second = await api.http.post(VOLUMES, json={"name": "data"}, headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    assert refusal(await api.http.post(VOLUMES, json={"name": "data"}), 409)["field"] == "name"


async def test_a_create_that_was_interrupted_is_found_again(api: Api) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await api.http.post(VOLUMES, json={"name": "data"}, headers=headers)
    async with api.app.state.plane.store.write() as connection:
        await connection.execute(text("UPDATE idempotency_keys SET status = NULL, answer = NULL"))
    second = await api.http.post(VOLUMES, json={"name": "data"}, headers=headers)
    assert (second.status_code, second.json()) == (201, first.json())
    assert len(api.engine.volumes.disks) == 1


async def test_a_quota_has_no_retry_after(api: Api) -> None:
    api.engine.refusals["create_volume"] = QuotaError("no more")
    answer = await api.http.post(VOLUMES, json={"name": "data"})
    refusal(answer, 429)
    assert "retry-after" not in answer.headers


async def test_a_full_pool_says_what_is_there(api: Api) -> None:
    sizes = {"provisioned_bytes": 1, "fs_size_bytes": 2, "fs_free_bytes": 3, "free_reserve_bytes": 4}
    detail = {"reason": "provisioned", **sizes, "oversub_factor": 20.0}
    api.engine.refusals["create_volume"] = StorageFullError("no room for the volume", hint="delete one", detail=detail)
    body = refusal(await api.http.post(VOLUMES, json={"name": "data"}), 507)
    assert body == {**detail, "detail": detail, "hint": "delete one", "error": body["error"], "code": "storage_full"}
    assert (await api.http.get(VOLUMES)).json() == []
