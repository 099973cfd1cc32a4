"""The server as its owner meets it: up, down, status, crashes, two on one host."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import httpx
import pytest

from pandastack import Client
from pandastack.engine.machines.warm_pool import MOST_BLANK
from pandastack.host import facts
from tests.support.installation import Create, Install, Installation, Server, eventually, machine_processes


@pytest.fixture(scope="module")
def exclusive(built: Installation, install: Install) -> Installation:
    """An installation with one template whose server the tests of this module may stop and kill."""
    return install("base")


def test_the_owner_is_given_a_token(server: Server) -> None:
    """As the official clients read it, and for nobody else to read."""
    path = server.installation.home / ".config/pandastack/config.json"
    assert json.loads(path.read_text()) == {"api_url": server.url, "token": server.token}
    for each in (path, server.installation.data / "client.json"):
        assert stat.S_IMODE(each.stat().st_mode) == 0o600


def test_up_says_when_one_runs_already(server: Server) -> None:
    again = server.installation.cli("up", "--detach")
    assert (again.returncode, again.stdout) == (0, f"pandastack already answers at {server.url}\n")


def test_status(server: Server) -> None:
    said = server.installation.json("status")
    assert (said["running"], said["url"], said["pid"]) == (True, server.url, server.process.pid)
    assert said["health"]["status"] == "ok"
    text = server.installation.cli("status").stdout
    assert server.url in text and said["health"]["checks"]["engine"]["isolation"] in text


def test_status_counts_what_runs(server: Server, create: Create) -> None:
    def counted() -> int:
        return int(server.installation.json("status")["health"]["checks"]["engine"]["sandboxes"])

    before = counted()
    asleep, paused, _ = create(), create(), create()
    assert counted() == before + 3
    asleep.hibernate()
    paused.pause()
    assert counted() == before + 1


def test_isolation_is_said_honestly(server: Server, http: httpx.Client) -> None:
    version = httpx.get(f"{server.url}/version").json()
    assert version["accelerator"] in ("tcg", "kvm")
    assert ("not hardware isolation" in version["isolation"]) == (version["accelerator"] == "tcg")


def test_what_really_confines_machines_is_said(server: Server) -> None:
    said = httpx.get(f"{server.url}/version").json()["confinement"]
    assert said == server.installation.json("status")["health"]["checks"]["engine"]["confinement"]
    separated = facts.is_root()
    assert said == {
        "kvm": httpx.get(f"{server.url}/version").json()["accelerator"] == "kvm",
        "user": separated,
        "netns": separated,
        "seccomp": True,
        "priority": True,
        "cgroup": separated,
        "memory": True,
    }
    assert "priority, " in server.installation.cli("status").stdout


def test_a_server_does_not_start_below_what_is_required_of_it(server: Server, install: Install) -> None:
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("this host has a /dev/kvm: whether it works is found out by a build, and asked for at each restore")
    refused = install(PANDASTACK_REQUIRE="seccomp,kvm").cli("up", "--detach", "--port", "0")
    assert refused.returncode == 1
    assert "PANDASTACK_REQUIRE asks for kvm" in refused.stderr


def test_status_without_a_server(install: Install) -> None:
    nobody = install()
    said = nobody.cli("status", "--json")
    assert (said.returncode, json.loads(said.stdout)["running"]) == (1, False)
    assert nobody.cli("down").stdout == "no server is running\n"


def test_a_port_that_is_taken(server: Server, exclusive: Installation) -> None:
    port = server.url.rpartition(":")[2]
    refused = exclusive.cli("up", "--port", port)
    assert refused.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr and "Traceback" not in refused.stderr
    assert exclusive.left_behind() == []


def test_a_second_server_for_the_same_data_is_refused(server: Server) -> None:
    """Also when the first one cannot be found by the file it wrote."""
    record = server.installation.data / "server.json"
    kept = record.read_bytes()
    record.unlink()
    try:
        refused = server.installation.cli("up", "--port", "0")
    finally:
        record.write_bytes(kept)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: another engine already uses {server.installation.data}\nhint: ")
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_two_servers_side_by_side(server: Server, exclusive: Installation) -> None:
    with (
        exclusive.serving() as other,
        Client(other.url, other.token) as client,
        client.sandboxes.create("base") as here,
    ):
        with Client(server.url, server.token) as first, first.sandboxes.create("base") as there:
            assert here.exec("echo $((6*7))").stdout == there.exec("echo $((6*7))").stdout == "42\n"
            assert here.id not in [each.id for each in first.sandboxes.list()]
            assert set(exclusive.machines()).isdisjoint(server.installation.machines())
        for url, token in ((server.url, other.token), (other.url, server.token)):
            refused = httpx.get(f"{url}/v1/me", headers={"Authorization": f"Bearer {token}"})
            assert refused.status_code == 401


def test_detached_up_and_down(exclusive: Installation) -> None:
    up = exclusive.cli("up", "--detach", "--port", "0")
    assert up.returncode == 0, up.stderr
    assert up.stdout.startswith("pandastack answers at http://127.0.0.1:")
    sandboxes = [exclusive.json("sandbox", "create", "-t", "base")["id"] for _ in range(2)]
    assert {each["id"] for each in exclusive.json("sandbox", "list")} == set(sandboxes)
    assert exclusive.machines()
    assert exclusive.cli("down").stdout == "stopped\n"
    assert exclusive.left_behind() == []
    assert exclusive.cli("status").returncode == 1


def test_a_killed_server_leaves_its_sandboxes_running_and_nothing_else(exclusive: Installation) -> None:
    with exclusive.serving() as first, Client(first.url, first.token) as client:
        sandbox = client.sandboxes.create("base", persistent=True)
        sandbox.exec("echo before > /root/mark", check=True)
        former = set(exclusive.machines())
        first.kill()
        assert former <= set(machine_processes())
    with exclusive.serving() as second, Client(second.url, second.token) as client:
        assert len(former & set(machine_processes())) == 1  # those that waited for a sandbox are ended
        assert second.token == first.token
        found = client.sandboxes.get(sandbox.id)
        assert found.status == "running"
        assert found.exec("cat /root/mark", check=True).stdout == "before\n"
        found.kill()
        with client.sandboxes.create("base") as another:
            assert another.exec("ls /root").stdout == ""
    assert exclusive.left_behind() == []


def test_a_killed_server_is_known_to_be_gone(exclusive: Installation) -> None:
    with exclusive.serving() as server:
        server.kill()
        assert exclusive.cli("status").returncode == 1
        assert exclusive.cli("down").stdout == "no server is running\n"
    with exclusive.serving():
        assert exclusive.cli("status").returncode == 0


def test_stopping_ends_running_commands_in_time(exclusive: Installation) -> None:
    with exclusive.serving() as server, server.http() as http:
        sandbox = http.post("/sandboxes", json={"template": "base"}).json()
        body = {"cmd": "echo begun; sleep 1000"}
        with http.stream("POST", f"/sandboxes/{sandbox['id']}/exec/stream", json=body) as stream:
            assert "begun" in next(line for line in stream.iter_lines() if line.startswith("data:"))
            started = time.monotonic()
            assert exclusive.cli("down").returncode == 0
            assert time.monotonic() - started < 20
            ending = "".join(stream.iter_lines()) if not stream.is_stream_consumed else ""
            assert '"exit_code"' not in ending
    assert exclusive.left_behind() == []


@pytest.mark.root
def test_the_storage_pool_is_used_by_reflink_where_it_can_be(exclusive: Installation) -> None:
    if facts.program("mkfs.xfs") is None:
        pytest.skip("this host has no mkfs.xfs")
    with exclusive.serving() as server:
        health = httpx.get(f"{server.url}/healthz").json()
        assert health["checks"]["engine"]["checks"]["reflink"] == "ok"


def test_a_new_template_needs_no_restart(install: Install, built: Installation) -> None:
    empty = install()
    with empty.serving() as server, Client(server.url, server.token) as client:
        assert client.templates.list() == []
        empty.build("base")
        assert [each.name for each in client.templates.list()] == ["base"]
        with client.sandboxes.create("base") as sandbox:
            assert sandbox.exec("echo new").stdout == "new\n"


def test_doctor(built: Installation) -> None:
    checks = {each["name"]: each for each in built.json("doctor")}
    assert checks["qemu-system-x86_64"]["verdict"] == "ok"
    assert Path(checks["qemu-system-x86_64"]["detail"]).exists()
    assert {each["verdict"] for each in checks.values()} <= {"ok", "warn"}
    assert all(each["fix"] for each in checks.values() if each["verdict"] != "ok")
    assert "privileges" in built.cli("doctor").stdout


def test_ready_machines_are_prepared_again(server: Server, http: httpx.Client, create: Create) -> None:
    """Two of each kind for each template in use, whatever other tests have used up; more empty ones after a burst."""
    names = [each["name"] for each in http.get("/templates").json()]
    for each in names:
        create(each).kill()  # another test may have built it and not used it
    templates = len(names)

    def waiting_machines() -> int:
        """Sandboxes that other tests left may end meanwhile, so they are counted each time."""
        used = len([each for each in http.get("/sandboxes").json() if each["status"] == "running"])
        return len(server.installation.machines()) - used

    waiting = eventually(lambda: (found := waiting_machines()) >= 4 * templates and found, 60, "they wait")
    assert waiting <= templates * (2 + MOST_BLANK)
