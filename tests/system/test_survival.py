"""The server is killed at every moment of a sandbox's life; the next one goes on with what was there."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import suppress

import httpx

from tests.support.installation import NONE_AHEAD, Installation, eventually, machine_processes, serving, shelves
from tests.support.machines import kill_machines, killed_at, pid_of
from tests.support.programs import COUNTER, ticking


def test_ten_running_sandboxes_survive_a_killed_server(place: Installation) -> None:
    with serving(place) as (server, client), server.http() as http:
        made = [client.sandboxes.create("base", persistent=True) for _ in range(10)]
        for number, each in enumerate(made):
            each.exec(f"echo {number} > /root/number; {COUNTER}", check=True)
        made[9].pause()
        pids = {each.id: pid_of(http, each) for each in made}
        server.kill()
    with serving(place, **NONE_AHEAD) as (server, client), server.http() as http:
        for number, each in enumerate(made):
            found = client.sandboxes.get(each.id)
            assert found.status == ("paused" if number == 9 else "running")
            found.resume()
            assert found.exec("cat /root/number", check=True).stdout == f"{number}\n"
            assert ticking(found)
            assert pid_of(http, found) == pids[each.id]
        for each in made:
            client.sandboxes.delete(each.id)
    with serving(place, **NONE_AHEAD) as (server, client):
        assert client.sandboxes.list() == []
    assert place.left_behind() == []


def test_an_orderly_stop_brings_back_what_ran(place: Installation) -> None:
    with serving(place) as (_, client):
        made = [client.sandboxes.create("base", persistent=number < 2, on_expire="hibernate") for number in range(4)]
        plain = client.sandboxes.create("base")
        for number, each in enumerate(made):
            each.exec(f"echo {number} > /run/number; {COUNTER}", check=True)
        made[3].pause()
    with serving(place, **NONE_AHEAD) as (_, client):
        for number, each in enumerate(made):
            found = client.sandboxes.get(each.id)
            if number < 3:
                eventually(lambda found=found: found.refresh().status == "running", 60, "it is woken")
            assert found.exec("cat /run/number", check=True).stdout == f"{number}\n"
            assert ticking(found)
        assert client.sandboxes.get(plain.id).status == "failed"
        for each in (*made, plain):
            client.sandboxes.delete(each.id)
    assert place.left_behind() == []


@killed_at("claimed", "running", later=["planned", "blank"])
def test_killed_in_the_middle_of_a_create(place: Installation, point: str) -> None:
    with serving(place, **NONE_AHEAD, PANDASTACK_CRASH_AT=point) as (server, client):
        with suppress(Exception):
            client.sandboxes.create("base", idempotency_key=point)
        server.process.wait(30)
    with serving(place, **NONE_AHEAD) as (server, client):
        assert client.sandboxes.list() == []
        with client.sandboxes.create("base", idempotency_key=point) as sandbox:
            assert client.sandboxes.create("base", idempotency_key=point).id == sandbox.id
            assert [each.id for each in client.sandboxes.list()] == [sandbox.id]
            assert sandbox.exec("echo fine").stdout == "fine\n"
    assert (place.left_behind(), shelves(place)) == ([], [])


def test_killed_before_the_answer_to_a_start_is_stored(place: Installation) -> None:
    """The same key finds the process that was started."""
    with serving(place) as (server, client), server.http() as http:
        sandbox = client.sandboxes.create("base", persistent=True)
        path, body, key = f"/sandboxes/{sandbox.id}/processes", {"cmd": COUNTER}, {"idempotency-key": "start"}
        started = http.post(path, json=body, headers=key).json()
        server.kill()
    with sqlite3.connect(place.data / "pandastack.db") as database:
        database.execute("UPDATE idempotency_keys SET status = NULL, answer = NULL WHERE key = 'start'")
    with serving(place, **NONE_AHEAD) as (server, client), server.http() as http:
        again = http.post(path, json=body, headers=key)
        assert (again.status_code, again.json()["pid"], again.json()["id"]) == (201, started["pid"], started["id"])
        replayed = http.post(path, json=body, headers=key)
        assert (replayed.content, replayed.headers["idempotency-replayed"]) == (again.content, "true")
        client.sandboxes.delete(sandbox.id)


@killed_at("captured", "ending", later=["hibernating", "asleep"])
def test_killed_in_the_middle_of_a_hibernate(place: Installation, point: str) -> None:
    with serving(place, PANDASTACK_CRASH_AT=point) as (server, client):
        sandbox = client.sandboxes.create("base", persistent=True)
        sandbox.exec(f"echo kept > /root/file; {COUNTER}", check=True)
        with suppress(Exception):
            sandbox.hibernate()
        server.process.wait(30)
    with serving(place, **NONE_AHEAD) as (server, client):
        found = client.sandboxes.get(sandbox.id)
        assert found.status == ("hibernated" if point in ("asleep", "ending") else "running")
        assert found.exec("cat /root/file", check=True).stdout == "kept\n"
        assert ticking(found)
        found.kill()
    assert (place.left_behind(), shelves(place)) == ([], [])


@killed_at("claimed", "awake", later=["planned", "blank", "running"])
def test_killed_in_the_middle_of_a_wake(place: Installation, point: str) -> None:
    with serving(place) as (server, client):
        sandbox = client.sandboxes.create("base", persistent=True)
        sandbox.exec(f"echo kept > /root/file; {COUNTER}", check=True)
        sandbox.hibernate()
    with serving(place, **NONE_AHEAD, PANDASTACK_CRASH_AT=point) as (server, client):
        with suppress(Exception):
            client.sandboxes.get(sandbox.id).wake()
        server.process.wait(30)
    with serving(place, **NONE_AHEAD) as (server, client):
        found = client.sandboxes.get(sandbox.id)
        assert found.exec("cat /root/file", check=True).stdout == "kept\n"
        assert ticking(found)
        found.kill()
    assert (place.left_behind(), shelves(place)) == ([], [])


@killed_at("captured", "claimed", later=["planned"])
def test_killed_in_the_middle_of_a_fork(place: Installation, point: str) -> None:
    with serving(place) as (server, client):
        parent = client.sandboxes.create("base", persistent=True)
        parent.exec(COUNTER, check=True)
        server.kill()
    with serving(place, **NONE_AHEAD, PANDASTACK_CRASH_AT=point) as (server, client):
        with suppress(Exception):
            client.sandboxes.fork(parent.id)
        server.process.wait(30)
    with serving(place, **NONE_AHEAD) as (server, client):
        assert [each.id for each in client.sandboxes.list()] == [parent.id]
        found = client.sandboxes.get(parent.id)
        assert ticking(found)
        found.kill()
    assert (place.left_behind(), shelves(place)) == ([], [])


def test_killed_in_the_middle_of_a_snapshot(place: Installation) -> None:
    with serving(place, PANDASTACK_CRASH_AT="captured") as (server, client):
        sandbox = client.sandboxes.create("base", persistent=True)
        with suppress(Exception):
            sandbox.snapshot()
        server.process.wait(30)
    with serving(place, **NONE_AHEAD) as (server, client):
        assert client.snapshots.list() == []
        assert client.sandboxes.get(sandbox.id).exec("echo on").stdout == "on\n"
        client.sandboxes.delete(sandbox.id)
    assert (place.left_behind(), shelves(place)) == ([], [])


def test_killed_in_the_middle_of_a_delete(place: Installation) -> None:
    with serving(place, PANDASTACK_CRASH_AT="ending") as (server, client):
        sandbox = client.sandboxes.create("base", persistent=True)
        with suppress(Exception):
            sandbox.kill()
        server.process.wait(30)
    with serving(place, **NONE_AHEAD) as (server, client):
        assert client.sandboxes.list() == []
    assert (place.left_behind(), shelves(place)) == ([], [])


def test_a_reboot_of_the_host_wakes_the_hibernated_and_leaves_the_others_their_disks(place: Installation) -> None:
    with serving(place) as (server, client):
        asleep, running = (client.sandboxes.create("base", persistent=True) for _ in range(2))
        asleep.exec("echo kept > /root/file", check=True)
        asleep.hibernate()
        server.kill()
        kill_machines(place)
    with serving(place, **NONE_AHEAD) as (server, client):
        found = client.sandboxes.get(running.id)
        assert (found.status, found.lifecycle()["memory"]) == ("hibernated", "lost")
        found = client.sandboxes.get(asleep.id)
        assert found.status == "hibernated"
        assert found.exec("cat /root/file", check=True).stdout == "kept\n"
        for each in (asleep, running):
            client.sandboxes.delete(each.id)
    assert (place.left_behind(), shelves(place)) == ([], [])


def test_killed_in_the_middle_of_a_diff(place: Installation) -> None:
    """Machines that are only looked at belong to nobody: the next start ends them, and goes on with the sandbox."""
    with serving(place, PANDASTACK_CRASH_AT="looking") as (server, client):
        sandbox = client.sandboxes.create("base", persistent=True)
        checkpoints = [sandbox.checkpoint().id for _ in range(2)]
        with suppress(Exception):
            sandbox.diff(*checkpoints)
        server.process.wait(30)
        assert len(place.machines()) >= 3
    with serving(place, **NONE_AHEAD) as (server, client):
        assert [each.id for each in client.sandboxes.list()] == [sandbox.id]
        assert len(place.machines()) == 1
        found = client.sandboxes.get(sandbox.id)
        assert found.diff(*checkpoints).changes == ()
        found.kill()
    assert (place.left_behind(), shelves(place)) == ([], [])


def test_a_machine_that_dies_while_the_server_is_away(place: Installation) -> None:
    with serving(place) as (server, client), server.http() as http:
        victim, other = (client.sandboxes.create("base", persistent=True) for _ in range(2))
        pid = pid_of(http, victim)
        server.kill()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pid not in machine_processes(), 60, "it is gone")
    with serving(place, **NONE_AHEAD) as (server, client):
        assert client.sandboxes.get(victim.id).status == "hibernated"
        assert other.id in {each.id for each in client.sandboxes.list()}
        with httpx.Client() as http:
            assert http.get(f"{server.url}/healthz").status_code == 200
        for each in (victim, other):
            client.sandboxes.delete(each.id)
    assert (place.left_behind(), shelves(place)) == ([], [])
