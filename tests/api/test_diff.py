"""Diffs over HTTP: which states are asked for, and what is refused before anything is done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pandastack.contract.compare import CompareFiles
from pandastack.contract.references import SandboxRef, SnapshotRef, TemplateRef
from pandastack.errors import BadRequestError, GuestError
from tests.support.api import UNKNOWN, Api, refusal

pytestmark = pytest.mark.anyio

EMPTY = {"added": 0, "removed": 0, "changed": 0, "changes": [], "truncated": False}


async def test_without_states_it_is_what_changed_since_the_template(api: Api) -> None:
    path = await api.sandbox()
    answer = await api.http.get(f"{path}/diff")
    assert (answer.status_code, answer.json()) == (200, {"from": "template", "to": "now", **EMPTY})
    here = SandboxRef(path.rpartition("/")[2])
    assert api.engine.diffs == [CompareFiles(TemplateRef("base"), here)]


async def test_states_are_checkpoints_snapshots_and_other_sandboxes(api: Api) -> None:
    path, other = await api.sandbox(), (await api.sandbox()).rpartition("/")[2]
    checkpoint = (await api.http.post(f"{path}/checkpoints")).json()["id"]
    snapshot = (await api.http.post(f"{path}/snapshots")).json()["id"]
    for since, until, expected in (
        (checkpoint, "now", (SnapshotRef(checkpoint), SandboxRef(path.rpartition("/")[2]))),
        (snapshot, checkpoint, (SnapshotRef(snapshot), SnapshotRef(checkpoint))),
        ("now", other, (SandboxRef(path.rpartition("/")[2]), SandboxRef(other))),
        (other, "template", (SandboxRef(other), TemplateRef("base"))),
    ):
        answer = await api.http.get(f"{path}/diff", params={"from": since, "to": until, "patch": "1"})
        assert (answer.status_code, answer.json()["from"]) == (200, since), answer.text
        assert api.engine.diffs.pop() == CompareFiles(*expected, patch=True)


async def test_a_hibernated_sandbox_is_woken_for_its_present_state_only(api: Api) -> None:
    path = await api.sandbox()
    checkpoint = (await api.http.post(f"{path}/checkpoints")).json()["id"]
    await api.http.post(f"{path}/hibernate")
    past = {"from": "template", "to": checkpoint}
    assert (await api.http.get(f"{path}/diff", params=past)).status_code == 200
    assert (await api.http.get(path)).json()["status"] == "hibernated"
    assert (await api.http.get(f"{path}/diff")).status_code == 200
    assert (await api.http.get(path)).json()["status"] == "running"


async def test_what_cannot_be_compared_is_refused_with_the_field(api: Api) -> None:
    path = await api.sandbox()
    asked = {"from": "nothing/../of", "to": "now"}
    missing = refusal(await api.http.get(f"{path}/diff", params=asked), 404)
    assert missing["field"] == "from" and "nothing" in missing["error"] and missing["hint"]
    assert refusal(await api.http.get(f"{path}/diff", params={"to": "x" * 5000}), 404)["field"] == "to"
    assert refusal(await api.http.get(f"{path}/diff", params={"from": "now"}), 400)["field"] == "to"
    refusal(await api.http.get(f"{UNKNOWN}/diff"), 404)
    await api.http.post(f"{path}/pause")
    refusal(await api.http.get(f"{path}/diff"), 409)
    assert api.engine.diffs == []


@pytest.mark.parametrize(
    ("error", "code"), [(BadRequestError("different builds", field="from"), 400), (GuestError("said nothing"), 502)]
)
async def test_what_the_engine_refuses_is_passed_on(api: Api, error: Exception, code: int) -> None:
    path = await api.sandbox()
    api.engine.refusals["diff"] = error
    assert refusal(await api.http.get(f"{path}/diff"), code)["error"] == str(error)


async def test_a_checkpoint_that_is_being_deleted_is_not_found(api: Api) -> None:
    path = await api.sandbox()
    checkpoint = (await api.http.post(f"{path}/checkpoints")).json()["id"]
    del api.engine.snapshots[checkpoint]
    refusal(await api.http.get(f"{path}/diff", params={"from": checkpoint}), 404)


async def test_states_of_other_workspaces_are_not_found(api: Api) -> None:
    path = await api.sandbox()
    stranger = (await api.sandbox()).rpartition("/")[2]
    plane = api.app.state.plane
    record = plane.registry.get(stranger)
    assert (await api.http.get(f"{path}/diff", params={"from": stranger})).status_code == 200
    plane.registry._records[stranger] = replace(record, workspace="another")
    refusal(await api.http.get(f"{path}/diff", params={"from": stranger}), 404)
    plane.registry._records[stranger] = record  # so that the fixture can end it
