"""A storage pool that is really full: a small one of its own, with a file in it that takes the rest."""

from __future__ import annotations

import threading

import httpx
import pytest

from pandastack import Sandbox
from tests.support.full_pools import MIB, full, small_pool
from tests.support.installation import Install, Installation, eventually, serving, shelves

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def place(built: Installation, install: Install) -> Installation:
    return small_pool(install)


def refused(http: httpx.Client, sandbox: Sandbox, below: str) -> None:
    answer = http.post(f"/sandboxes/{sandbox.id}/{below}")
    assert answer.status_code == 507, answer.text
    body = answer.json()
    assert "storage" in body["error"]
    assert "delete" in body["error"] + body.get("hint", "")


def test_a_sandbox_that_cannot_be_hibernated_runs_on(place: Installation) -> None:
    with serving(place) as (server, client), server.http() as http:
        sandbox = client.sandboxes.create("base", persistent=True)
        sandbox.exec("head -c 20000000 /dev/urandom > /run/blob; md5sum /run/blob > /run/sum", check=True)
        with full(place, 4 * MIB):
            refused(http, sandbox, "hibernate")
            refused(http, sandbox, "snapshots")
            refused(http, sandbox, "checkpoints")
            assert client.sandboxes.get(sandbox.id).status == "running"
            assert sandbox.exec("md5sum -c /run/sum", timeout_seconds=30).exit_code == 0
        assert shelves(place) == []
        sandbox.hibernate()
        assert sandbox.exec("md5sum -c /run/sum", timeout_seconds=30).exit_code == 0
        with full(place, MIB):
            answer = http.post("/sandboxes", json={"template": "base"})
            assert answer.status_code == 507 and "storage" in answer.json()["error"]
        sandbox.kill()
        assert client.sandboxes.list() == []
    assert (place.left_behind(), shelves(place)) == ([], [])


def test_an_automatic_checkpoint_gives_its_room_to_a_hibernation(place: Installation) -> None:
    with serving(place) as (server, client), server.http() as http:
        body = {"template": "base", "persistent": True, "checkpoint_after_exec": True}
        sandbox = client.sandboxes.get(http.post("/sandboxes", json=body).json()["id"])
        url = f"/sandboxes/{sandbox.id}"
        sandbox.exec("head -c 30000000 /dev/urandom > /run/blob; md5sum /run/blob > /run/sum", check=True)
        eventually(lambda: http.get(f"{url}/checkpoints").json()["checkpoints"], 30, "a checkpoint is taken")
        http.patch(f"{url}/lifecycle", json={"checkpoint_after_exec": False}).raise_for_status()
        asked = sandbox.checkpoint("asked for")
        sandbox.exec("head -c 30000000 /dev/urandom > /run/blob; md5sum /run/blob > /run/sum", check=True)
        with full(place, 8 * MIB):
            sandbox.hibernate()
            assert client.sandboxes.get(sandbox.id).status == "hibernated"
        assert [each.id for each in sandbox.timeline()] == [asked.id]
        assert "checkpoint.evicted" in [each["type"] for each in http.get(f"{url}/events").json()["events"]]
        assert sandbox.exec("md5sum -c /run/sum", timeout_seconds=30).exit_code == 0
        sandbox.kill()
    assert (place.left_behind(), shelves(place)) == ([], [])


def test_a_machine_that_writes_into_a_full_pool_waits_for_room(place: Installation) -> None:
    """Its guest sees neither an error nor time; a neighbour that does not write runs on."""
    with serving(place) as (server, client), server.http() as http:
        sandbox, neighbour = client.sandboxes.create("base"), client.sandboxes.create("base")
        cmd = "head -c 60000000 /dev/urandom > /root/blob; sync; md5sum /root/blob > /run/sum"
        done: list[int] = []
        writer = threading.Thread(target=lambda: done.append(sandbox.exec(cmd, timeout_seconds=300).exit_code))

        def events() -> list[str]:
            return [each["type"] for each in http.get(f"/sandboxes/{sandbox.id}/events").json()["events"]]

        with full(place, 4 * MIB):
            writer.start()
            eventually(lambda: "vm.stalled" in events(), 120, "the machine stands still")
            assert neighbour.exec("echo unharmed", timeout_seconds=30).stdout == "unharmed\n"
            assert (done, client.sandboxes.get(sandbox.id).status) == ([], "running")
        writer.join(300)
        assert done == [0]
        assert "vm.continued" in events()
        assert sandbox.exec("echo 3 > /proc/sys/vm/drop_caches; md5sum -c /run/sum").exit_code == 0
        for each in (sandbox, neighbour):
            each.kill()
