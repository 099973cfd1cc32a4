"""Pause, hibernate, snapshots, forks and checkpoints over HTTP, as the wire contract wants them."""

from __future__ import annotations

from typing import Any

import pytest

from pandastack.errors import CapacityError, ServerError, StorageFullError
from tests.support.api import UNKNOWN, Api, refusal

pytestmark = pytest.mark.anyio

ODD_BODY: dict[str, Any] = {"content": "", "headers": {"content-type": "text/plain;charset=UTF-8"}}


async def status(api: Api, path: str) -> str:
    return str((await api.http.get(path)).json()["status"])


@pytest.mark.parametrize(("down", "up"), [("hibernate", "wake"), ("stop", "start")])
async def test_hibernate_and_wake(api: Api, down: str, up: str) -> None:
    path = await api.sandbox()
    for _ in range(2):
        assert (await api.http.post(f"{path}/{down}", **ODD_BODY)).json() == {"status": "hibernated"}
    assert await status(api, path) == "hibernated"
    for _ in range(2):
        assert (await api.http.post(f"{path}/{up}")).json() == {"status": "running"}
    assert [call.split()[0] for call in api.engine.calls] == ["create", "hibernate", "wake"]
    refusal(await api.http.post(f"{UNKNOWN}/{up}"), 404)


async def test_a_paused_sandbox_refuses_at_once_and_resumes(api: Api) -> None:
    path = await api.sandbox()
    for _ in range(2):
        assert (await api.http.post(f"{path}/pause")).status_code == 204
    assert await status(api, path) == "paused"
    refusal(await api.http.post(f"{path}/exec", json={"cmd": "true"}), 409)
    refusal(await api.http.post(f"{path}/fork"), 409)
    for _ in range(2):
        assert (await api.http.post(f"{path}/resume")).status_code == 204
    assert (await api.http.post(f"{path}/exec", json={"cmd": "true"})).status_code == 200


@pytest.mark.parametrize(
    ("method", "route"),
    [("POST", "exec"), ("GET", "fs?path=/etc/hostname"), ("GET", "logs"), ("POST", "fork"), ("POST", "snapshots")],
)
async def test_use_wakes(api: Api, method: str, route: str) -> None:
    path = await api.sandbox()
    await api.http.post(f"{path}/hibernate")
    for reading in ("", "/lifecycle", "/events"):
        await api.http.get(f"{path}{reading}")
    await api.http.get("/v1/sandboxes")
    assert await status(api, path) == "hibernated"
    response = await api.http.request(method, f"{path}/{route}", json={"cmd": "true"} if method == "POST" else None)
    assert response.is_success, response.text
    assert await status(api, path) == "running"


@pytest.mark.parametrize("error", [CapacityError("timeout"), StorageFullError("timeout"), ServerError("timeout")])
async def test_a_failed_wake_is_no_promise_and_no_command_timeout(api: Api, error: Exception) -> None:
    path = await api.sandbox()
    await api.http.post(f"{path}/hibernate")
    api.engine.refusals["wake"] = error
    for route, body in (("exec", {"cmd": "true"}), ("fork", {})):
        response = await api.http.post(f"{path}/{route}", json=body)
        assert "timeout" not in refusal(response, 503)["error"]
        assert "retry-after" not in response.headers
    assert await status(api, path) == "hibernated"


async def test_a_hibernated_sandbox_is_deleted_without_waking(api: Api) -> None:
    path = await api.sandbox()
    await api.http.post(f"{path}/hibernate")
    assert (await api.http.delete(path)).status_code == 204
    assert not [call for call in api.engine.calls if call.startswith("wake")]
    refusal(await api.http.get(path), 404)


async def test_snapshots(api: Api) -> None:
    path = await api.sandbox()
    taken = [await api.http.post(f"{path}/snapshots", **ODD_BODY) for _ in range(2)]
    assert [response.status_code for response in taken] == [201, 201]
    first, second = (response.json() for response in taken)
    assert (first["sandbox_id"], first["template"], first["size_bytes"]) == (path.rpartition("/")[2], "base", 8192)
    assert (await api.http.get("/v1/snapshots")).json() == {"snapshots": [second, first]}
    query = {"sandbox_id": "other"}
    assert (await api.http.get("/v1/snapshots", params=query)).json() == {"snapshots": []}
    await api.http.delete(path)  # snapshots outlive their source
    body = {"template": "no/such..", "from_snapshot": first["id"]}
    restored = await api.http.post("/v1/sandboxes", json=body)
    assert restored.status_code == 201, restored.text
    assert (restored.json()["template"], restored.json()["from_snapshot"]) == ("base", first["id"])
    assert (await api.http.delete(f"/v1/snapshots/{first['id']}")).status_code == 204
    assert list(api.engine.snapshots) == [second["id"]]
    refusal(await api.http.get(f"/v1/snapshots/{first['id']}"), 404)
    refusal(await api.http.delete(f"/v1/snapshots/{first['id']}"), 404)
    refusal(await api.http.post("/v1/sandboxes", json=body), 404)


async def test_a_fork_has_the_shape_that_all_clients_read(api: Api) -> None:
    made = await api.http.post("/v1/sandboxes", json={"template": "base", "ttl_seconds": 77, "metadata": {"a": "1"}})
    parent = made.json()["id"]
    response = await api.http.post(f"/v1/sandboxes/{parent}/fork", json={"metadata": {"b": "2"}, "mode": "warm"})
    assert response.status_code == 201
    body, child = response.json(), response.json()["sandbox"]
    assert body["children"] == [child["id"]]
    assert (body["parent_id"], child["status"], child["ttl_seconds"], child["cpu"]) == (parent, "running", 77, 2)
    assert child["metadata"] == {"a": "1", "b": "2", "fork_parent_id": parent, "workspace": "default"}
    events = (await api.http.get(f"/v1/sandboxes/{parent}/events")).json()["events"]
    assert [event["type"] for event in events][-3:] == ["fork.staged", "sandbox.forked", "fork.completed"]
    several = await api.http.post(f"/v1/sandboxes/{parent}/fork", json={"count": 3})
    assert len(several.json()["children"]) == 3
    refusal(await api.http.post(f"/v1/sandboxes/{parent}/fork", json={"count": 17}), 400)


async def test_a_tree_with_failures_is_a_success_in_order(api: Api) -> None:
    path = await api.sandbox()
    api.engine.child_failures[1] = CapacityError("no room")
    body = {"count": 3, "metadata": {"explore_ttl": "42"}}
    tree = (await api.http.post(f"{path}/fork-tree", json=body)).json()
    assert tree["errors"] == [{"index": 1, "error": "no room"}]
    assert [child["metadata"]["fork_index"] for child in tree["children"]] == ["0", "2"]
    assert {child["metadata"]["fork_tree_id"] for child in tree["children"]} == {tree["tree_id"]}
    assert {child["metadata"]["fork_tree_role"] for child in tree["children"]} == {"child"}
    assert {child["ttl_seconds"] for child in tree["children"]} == {42}
    assert len((await api.http.get("/v1/sandboxes")).json()) == 3
    events = {event["type"]: event["payload"] for event in (await api.http.get(f"{path}/events")).json()["events"]}
    assert events["fork.child_failed"]["index"] == 1
    done = events["fork_tree.completed"]
    assert (done["requested"], done["succeeded"], done["failed"]) == (3, 2, 1)


@pytest.mark.parametrize(("error", "code"), [(CapacityError("full"), 503), (StorageFullError("full"), 507)])
async def test_a_tree_without_children_leaves_no_records(api: Api, error: Exception, code: int) -> None:
    path = await api.sandbox()
    api.engine.refusals["fork"] = error
    response = await api.http.post(f"{path}/fork-tree", json={"count": 2})
    assert refusal(response, code)["error"] == "full"
    assert ("retry-after" in response.headers) == (code == 503)
    assert len((await api.http.get("/v1/sandboxes")).json()) == 1


async def test_promote_keeps_the_winner_and_deletes_its_siblings(api: Api) -> None:
    path = await api.sandbox()
    refusal(await api.http.post(f"{path}/promote", json={"cleanup_siblings": True}), 400)
    alone = (await api.http.post(f"{path}/promote")).json()
    assert (alone["deleted"], alone["failures"]) == ([], {})
    tree = (await api.http.post(f"{path}/fork-tree", json={"count": 3, "metadata": {"explore_ttl": "9"}})).json()
    first, winner, last = (child["id"] for child in tree["children"])
    answer = await api.http.post(f"/v1/sandboxes/{winner}/promote", json={"cleanup_siblings": True})
    body = answer.json()
    assert (body["winner"], body["tree_id"], body["failures"]) == (winner, tree["tree_id"], {})
    assert sorted(body["deleted"]) == sorted([first, last])
    assert {entry["id"] for entry in (await api.http.get("/v1/sandboxes")).json()} == {winner, path.rpartition("/")[2]}
    assert (await api.http.get(f"/v1/sandboxes/{winner}")).json()["ttl_seconds"] == 300
    again = await api.http.post(f"/v1/sandboxes/{winner}/promote", json={"cleanup_siblings": True})
    assert again.json()["deleted"] == []


async def test_checkpoints(api: Api) -> None:
    path = await api.sandbox()
    await api.http.post(f"{path}/exec", json={"cmd": "make " + "x" * 500})
    named = (await api.http.post(f"{path}/checkpoints", json={"label": "before"})).json()
    other = (await api.http.post(f"{path}/checkpoints")).json()
    assert (named["label"], other["label"]) == ("before", "make " + "x" * 195)
    assert (named["commands"], named["command_count"], named["automatic"]) == (["make " + "x" * 195], 1, False)
    assert (other["commands"], other["command_count"]) == ([], 0)
    assert (await api.http.get(f"{path}/checkpoints")).json() == {"checkpoints": [named, other]}
    assert (await api.http.get("/v1/snapshots")).json() == {"snapshots": []}
    await api.http.post(f"{path}/hibernate")
    rewound = await api.http.post(f"{path}/checkpoints/{named['id']}/rewind")
    assert (rewound.json()["id"], rewound.json()["status"]) == (path.rpartition("/")[2], "running")
    forked = await api.http.post(f"{path}/checkpoints/{named['id']}/fork")
    assert forked.status_code == 201
    assert forked.json()["metadata"]["fork_parent_id"] == path.rpartition("/")[2]
    wrong = f"/v1/sandboxes/{forked.json()['id']}/checkpoints/{named['id']}"
    refusal(await api.http.post(f"{wrong}/rewind"), 404)
    refusal(await api.http.delete(wrong), 404)
    assert (await api.http.delete(f"{path}/checkpoints/{named['id']}")).status_code == 204
    assert list(api.engine.snapshots) == [other["id"]]
    await api.http.delete(path)
    assert api.engine.snapshots == {}


async def test_when_checkpoints_are_taken_is_said_and_changed(api: Api) -> None:
    body = {"template": "base", "checkpoint_every": 60, "checkpoint_after_exec": True}
    path = f"/v1/sandboxes/{(await api.http.post('/v1/sandboxes', json=body)).json()['id']}/lifecycle"

    async def now(change: dict[str, Any] | None = None) -> tuple[float | None, bool]:
        answer = await (api.http.get(path) if change is None else api.http.patch(path, json=change))
        assert answer.status_code == 200, answer.text
        return answer.json()["checkpoint_every"], answer.json()["checkpoint_after_exec"]

    assert await now() == (60, True)
    assert await now({"ttl_seconds": 9}) == (60, True)
    assert await now({"checkpoint_every": None}) == (None, True)
    assert await now({"checkpoint_every": 1.5, "checkpoint_after_exec": False}) == (1.5, False)
    assert await now({"checkpoint_every": 0, "checkpoint_after_exec": None}) == (None, False)
    for wrong in (0.5, -1, "often", True):
        refused = refusal(await api.http.patch(path, json={"checkpoint_every": wrong}), 400)
        assert refused["field"] == "checkpoint_every"
    refusal(await api.http.patch(path, json={"checkpoint_after_exec": "yes"}), 400)
    assert await now() == (None, False)


async def test_a_command_is_followed_by_a_checkpoint(api: Api) -> None:
    made = await api.http.post("/v1/sandboxes", json={"template": "base", "checkpoint_after_exec": True})
    path = f"/v1/sandboxes/{made.json()['id']}"
    api.engine.refusals["snapshot"] = ServerError("no room")
    assert (await api.http.post(f"{path}/exec", json={"cmd": "echo \x1b[2J"})).status_code == 200
    plane = api.app.state.plane
    while plane.automatic._due_at(plane.registry.get(made.json()["id"])) is not None:
        await plane.automatic.look()
    assert (await api.http.get(f"{path}/checkpoints")).json() == {"checkpoints": []}
    del api.engine.refusals["snapshot"]
    assert (await api.http.post(f"{path}/exec", json={"cmd": "echo two"})).status_code == 200
    async for event in plane.events.follow(made.json()["id"], None, lambda: True):
        if event.type == "checkpoint.taken":
            break
    (taken,) = (await api.http.get(f"{path}/checkpoints")).json()["checkpoints"]
    assert taken["commands"] == ["echo \\x1b[2J", "echo two"]
    assert (taken["automatic"], taken["size_bytes"]) == (True, 8192)
