"""The host reboots: every process is gone, the disk is not."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest

from pandastack import Sandbox
from pandastack.errors import ConflictError
from tests.support.installation import NONE_AHEAD, Installation, Server, eventually, serving, shelves
from tests.support.machines import kill_machines, killed_at, pid_of
from tests.support.programs import COUNTER, ticking


def reboot(place: Installation, server: Server) -> None:
    server.kill()
    kill_machines(place)


def identity(sandbox: Sandbox) -> str:
    return sandbox.exec("cat /etc/machine-id; hostname", check=True).stdout


def test_a_checkpoint_brings_a_running_sandbox_back(place: Installation) -> None:
    with serving(place) as (server, client):
        kept, bare = (client.sandboxes.create("base", persistent=True, on_memory_loss="fail") for _ in range(2))
        kept.exec(f"echo one > /root/file; {COUNTER}", check=True)
        first = kept.checkpoint("first")
        kept.exec("echo two > /root/file", check=True)
        last = kept.checkpoint("last")
        kept.exec("echo three > /root/file", check=True)
        who = identity(kept)
        reboot(place, server)
    with serving(place, **NONE_AHEAD) as (server, client):
        found = client.sandboxes.get(kept.id)
        assert found.status == "failed"
        with server.http() as http:
            record = http.get(f"/sandboxes/{kept.id}").json()
            assert "its machine ended while no server ran" in record["reason"]
            refused = http.post(f"/sandboxes/{kept.id}/exec", json={"cmd": "true"})
            assert (refused.status_code, refused.json()["detail"]["checkpoint"]) == (409, last.id)
            assert "wake restores its checkpoint of" in refused.json()["hint"]
            hopeless = http.post(f"/sandboxes/{bare.id}/wake")
            assert (hopeless.status_code, hopeless.json()["hint"]) == (409, "create a new sandbox")
        found.wake()
        assert found.exec("cat /root/file", check=True).stdout == "two\n"
        assert ticking(found) and identity(found) == who
        found.rewind(first.id)
        assert found.exec("cat /root/file", check=True).stdout == "one\n"
        reboot(place, server)
    with serving(place, **NONE_AHEAD) as (server, client):
        found = client.sandboxes.get(kept.id)
        found.rewind(last.id)
        assert found.exec("cat /root/file", check=True).stdout == "two\n"
        assert client.sandboxes.get(kept.id).status == "running"
        for each in (kept, bare):
            client.sandboxes.delete(each.id)
    assert (place.left_behind(), shelves(place)) == ([], [])


@pytest.mark.parametrize(
    ("before", "point"),
    [
        ("running", "claimed"),
        ("paused", "rewound"),
        *(
            pytest.param("running", each, marks=pytest.mark.slow)
            for each in ("rewinding", "planned", "blank", "rewound")
        ),
        *(
            pytest.param("paused", each, marks=pytest.mark.slow)
            for each in ("rewinding", "planned", "blank", "claimed")
        ),
    ],
)
def test_killed_in_the_middle_of_a_rewind(place: Installation, point: str, before: str) -> None:
    """It has happened or it has not; a paused sandbox that it has not happened to is still paused."""
    with serving(place) as (server, client):
        sandbox = client.sandboxes.create("base", persistent=True, on_memory_loss="fail")
        sandbox.exec("echo then > /root/file", check=True)
        checkpoint = sandbox.checkpoint()
        sandbox.exec("echo now > /root/file", check=True)
        if before == "paused":
            sandbox.pause()
        server.kill()
    with serving(place, **NONE_AHEAD, PANDASTACK_CRASH_AT=point) as (server, client):
        with suppress(Exception):
            client.sandboxes.get(sandbox.id).rewind(checkpoint.id)
        server.process.wait(30)
    with serving(place, **NONE_AHEAD) as (server, client):
        found, happened = client.sandboxes.get(sandbox.id), point == "rewound"
        assert found.status == ("running" if happened else before)
        found.resume()
        assert found.exec("cat /root/file", check=True).stdout == ("then\n" if happened else "now\n")
        found.kill()
    assert (place.left_behind(), shelves(place)) == ([], [])


@killed_at("claimed", "running", later=["planned", "blank"])
def test_killed_in_the_middle_of_a_restore(place: Installation, point: str) -> None:
    with serving(place) as (server, client):
        sandbox = client.sandboxes.create("base", persistent=True, on_memory_loss="fail")
        sandbox.exec("echo kept > /root/file", check=True)
        sandbox.checkpoint()
        reboot(place, server)
    with serving(place, **NONE_AHEAD, PANDASTACK_CRASH_AT=point) as (server, client):
        with suppress(Exception):
            client.sandboxes.get(sandbox.id).wake()
        server.process.wait(30)
    with serving(place, **NONE_AHEAD) as (server, client):
        found = client.sandboxes.get(sandbox.id)
        assert found.status == ("running" if point == "running" else "failed")
        found.wake()
        assert found.exec("cat /root/file", check=True).stdout == "kept\n"
        found.kill()
    assert (place.left_behind(), shelves(place)) == ([], [])


def test_a_sandbox_whose_machine_died_goes_back_to_a_checkpoint(place: Installation) -> None:
    with serving(place) as (server, client), server.http() as http:
        sandbox = client.sandboxes.create("base", persistent=True, on_memory_loss="fail")
        sandbox.exec("echo kept > /root/file", check=True)
        sandbox.checkpoint()
        os.kill(pid_of(http, sandbox), signal.SIGKILL)
        eventually(lambda: client.sandboxes.get(sandbox.id).status == "failed", 60, "it has failed")
        with pytest.raises(ConflictError):
            sandbox.exec("true")
        sandbox.wake()
        assert sandbox.exec("cat /root/file", check=True).stdout == "kept\n"
        sandbox.kill()
    assert (place.left_behind(), shelves(place)) == ([], [])
