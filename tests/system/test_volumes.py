"""Volumes in real sandboxes: what is written is there for the next one, whatever ends in between."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from pandastack import BadRequestError, Client, ConflictError, NotFoundError, Sandbox
from tests.support.installation import NONE_AHEAD, Create, Installation, Server, eventually, serving
from tests.support.machines import pid_of
from tests.support.tenants import tenant

MakeVolume = Callable[..., str]


@pytest.fixture
def volume(client: Client) -> Iterator[MakeVolume]:
    """Make volumes that end with the test. Request it before ``create``: sandboxes end first."""
    made: list[str] = []

    def volume(name: str, size_mb: int = 64) -> str:
        made.append(client.volumes.create(name, size_mb)["name"])
        return name

    yield volume
    there = {each["name"] for each in client.volumes.list()}
    for name in there & {*made, "copy", "kept"}:
        client.volumes.delete(name)


@pytest.fixture(autouse=True)
def nothing_left(client: Client) -> Iterator[None]:
    yield
    assert [each["name"] for each in client.volumes.list()] == []


def write(sandbox: Sandbox, text: str, path: str = "/mnt/data/file") -> None:
    sandbox.exec(f"printf %s {text} > {path}", check=True)


def read(sandbox: Sandbox, path: str = "/mnt/data/file") -> str:
    return sandbox.exec(f"cat {path}", check=True).stdout


def size_of(sandbox: Sandbox, path: str = "/mnt/data") -> int:
    """MiB of the file system, as programs see it."""
    return int(sandbox.exec(f"df --output=size -BM {path} | tail -1 | tr -d M", check=True).stdout)


def test_what_a_sandbox_writes_is_there_for_the_next(volume: MakeVolume, create: Create, client: Client) -> None:
    volume("data")
    first = create(volumes=[{"name": "data"}])
    assert read(first, "/proc/mounts").count(" /mnt/data ext4 rw") == 1
    write(first, "hello")
    [holder] = client.volumes.get("data")["attached_to"]
    assert holder == {"sandbox_id": first.id, "path": "/mnt/data", "read_only": False}
    first.kill()
    found = client.volumes.get("data")
    assert found["attached_to"] == [] and 0 < found["size_bytes"] < 64 << 20
    assert read(create(volumes=[{"name": "data"}])) == "hello"


def test_the_command_line_and_plain_http(
    volume: MakeVolume, create: Create, server: Server, http: httpx.Client, client: Client
) -> None:
    place = server.installation
    assert place.json("volume", "create", "data", "--size", "64")["size_mb"] == 64
    sandbox_id = place.json("sandbox", "create", "-t", "base", "--volume", "data:/srv/data")["id"]
    assert place.cli("sandbox", "exec", sandbox_id, "echo there > /srv/data/file").returncode == 0
    assert sandbox_id in place.cli("volume", "list").stdout
    refused = place.cli("volume", "delete", "data")
    assert refused.returncode == 1 and sandbox_id in refused.stderr
    assert place.cli("sandbox", "delete", sandbox_id).returncode == 0
    body = {"template": "base", "volumes": [{"name": "data"}], "ttl_seconds": 600}
    made = http.post("/sandboxes", json=body).raise_for_status().json()
    assert made["volumes"] == [{"name": "data", "path": "/mnt/data", "read_only": False}]
    with client.sandboxes.get(made["id"]) as sandbox:
        assert read(sandbox) == "there\n"
    assert place.json("volume", "delete", "data") == {"deleted": ["data"]}


def test_devices_are_in_the_order_of_the_request(volume: MakeVolume, create: Create) -> None:
    volume("one")
    volume("two", 128)
    sandbox = create(volumes=[{"name": "two"}, {"name": "one", "path": "/srv/one"}])
    mounts = {line.split()[1]: line.split()[0] for line in read(sandbox, "/proc/mounts").splitlines()}
    assert (mounts["/mnt/two"], mounts["/srv/one"]) == ("/dev/vdb", "/dev/vdc")
    assert size_of(sandbox, "/mnt/two") > 100 > size_of(sandbox, "/srv/one") > 40


def test_one_writes_and_any_number_read(volume: MakeVolume, create: Create, http: httpx.Client, client: Client) -> None:
    volume("data")
    writer = create(volumes=[{"name": "data"}])
    write(writer, "first")
    readers = [create(volumes=[{"name": "data", "read_only": True}]) for _ in range(2)]
    write(writer, "second")
    for each in readers:
        assert read(each) == "first", "as it was when the reader was created"
        assert "Read-only" in each.exec("touch /mnt/data/x").stderr
    refused = http.post("/sandboxes", json={"template": "base", "volumes": [{"name": "data"}]})
    assert refused.status_code == 409 and writer.id in refused.json()["error"]
    with pytest.raises(ConflictError, match="attached"):
        client.volumes.delete("data")
    assert len(client.volumes.get("data")["attached_to"]) == 3


def test_a_sleeper_keeps_its_volume(volume: MakeVolume, create: Create, client: Client) -> None:
    volume("data")
    sandbox = create(volumes=[{"name": "data"}])
    write(sandbox, "before")
    sandbox.exec("exec 3>/mnt/data/open; (while sleep 1; do :; done) <&- >&- 2>&- 3>&3 &", check=True)
    sandbox.hibernate()
    with pytest.raises(ConflictError, match=sandbox.id):
        client.sandboxes.create("base", volumes=[{"name": "data"}])
    copy = client.volumes.clone("data", "copy")
    assert copy["size_mb"] == 64
    assert read(sandbox) == "before"
    write(sandbox, "after")
    assert read(create(volumes=[{"name": "copy"}]), "/mnt/copy/file") == "before"


def test_copies_of_a_sandbox_have_disks_of_their_own(volume: MakeVolume, create: Create, client: Client) -> None:
    volume("data")
    parent = create(volumes=[{"name": "data"}])
    write(parent, "common")
    snapshot = parent.snapshot()
    with parent.fork() as child, client.sandboxes.create(from_snapshot=snapshot) as restored:
        write(parent, "parents")
        write(child, "childs")
        assert (read(parent), read(child), read(restored)) == ("parents", "childs", "common")
        assert [each["sandbox_id"] for each in client.volumes.get("data")["attached_to"]] == [parent.id]
        client.volumes.keep(child.id, "/mnt/data", "kept")
        with pytest.raises(NotFoundError, match="/mnt/none"):
            client.volumes.keep(child.id, "/mnt/none", "nothing")
    client.snapshots.delete(snapshot)
    parent.kill()
    assert read(create(volumes=[{"name": "data"}])) == "parents"
    assert read(create(volumes=[{"name": "kept", "path": "/mnt/data"}])) == "childs"


def test_a_rewind_takes_the_volume_along(volume: MakeVolume, create: Create, client: Client) -> None:
    volume("data")
    sandbox = create(volumes=[{"name": "data"}])
    write(sandbox, "old")
    checkpoint = sandbox.checkpoint()
    write(sandbox, "new")
    sandbox.rewind(checkpoint.id)
    assert read(sandbox) == "old"
    write(sandbox, "newest")
    sandbox.kill()
    assert read(create(volumes=[{"name": "data"}])) == "newest"


def test_growing_in_use_and_not(volume: MakeVolume, create: Create, client: Client) -> None:
    volume("data")
    sandbox = create(volumes=[{"name": "data"}])
    write(sandbox, "there")
    assert size_of(sandbox) < 64
    assert client.volumes.grow("data", 256)["size_mb"] == 256
    assert size_of(sandbox) > 200 and read(sandbox) == "there"
    sandbox.exec("dd if=/dev/zero of=/mnt/data/large bs=1M count=150 status=none", check=True)
    sandbox.kill()
    client.volumes.grow("data", 512)
    again = create(volumes=[{"name": "data"}])
    assert size_of(again) > 400 and read(again) == "there"
    with pytest.raises(BadRequestError, match="shrink"):
        client.volumes.grow("data", 64)


def test_clones_and_snapshots_of_a_volume_in_use(volume: MakeVolume, create: Create, client: Client) -> None:
    volume("data")
    sandbox = create(volumes=[{"name": "data"}])
    write(sandbox, "one")
    client.volumes.snapshot("data", "kept")
    client.volumes.clone("data", "copy", size_mb=128)
    write(sandbox, "two")
    with pytest.raises(BadRequestError, match="snapshot"):
        client.sandboxes.create("base", volumes=[{"name": "kept"}])
    other = create(volumes=[{"name": "kept", "read_only": True}, {"name": "copy"}])
    assert read(other, "/mnt/kept/file") == read(other, "/mnt/copy/file") == "one"
    assert size_of(other, "/mnt/copy") > 100


def test_another_workspace_sees_none_of_it(volume: MakeVolume, create: Create, server: Server) -> None:
    volume("data")
    sandbox = create(volumes=[{"name": "data"}])
    with tenant(server, "rival") as rival:
        assert rival.volumes.list() == []
        for call in (
            lambda: rival.volumes.get("data"),
            lambda: rival.volumes.delete("data"),
            lambda: rival.volumes.grow("data", 128),
            lambda: rival.volumes.clone("data", "copy"),
            lambda: rival.volumes.keep(sandbox.id, "/mnt/data", "copy"),
        ):
            with pytest.raises(NotFoundError):
                call()
        with pytest.raises(BadRequestError, match="unknown volume"):
            rival.sandboxes.create("base", volumes=[{"name": "data", "read_only": True}])
        assert rival.volumes.create("data", 32)["size_mb"] == 32
        rival.volumes.delete("data")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"name": "new", "size_mb": 1}, 400, "size_mb"),
        ({"name": "new", "size_mb": 65537}, 400, "size_mb"),
        ({"name": "../new"}, 400, "name"),
        ({"name": "new", "from": {"volume": "none"}}, 404, "from.volume"),
        ({"name": "new", "from": {"volume": "data"}, "size_mb": 32}, 400, "size_mb"),
        ({"name": "data"}, 409, "name"),
    ],
)
def test_bad_volumes(volume: MakeVolume, http: httpx.Client, body: dict[str, Any], status: int, field: str) -> None:
    volume("data")
    refused = http.post("/volumes", json=body)
    assert (refused.status_code, refused.json().get("field")) == (status, field), refused.text


@pytest.mark.parametrize(
    ("mounts", "status", "field"),
    [
        ([{"name": "none"}], 400, "volumes.0.name"),
        ([{"name": "data", "path": "data"}], 400, "volumes.0.path"),
        ([{"name": "data", "path": "/mnt/../etc"}], 400, "volumes.0.path"),
        ([{"name": "data", "path": "/proc/1"}], 400, "volumes.0.path"),
        ([{"name": "data", "path": "/etc/hostname"}], 400, "volumes.0.path"),
        ([{"name": "data", "path": "/etc/hostname/below"}], 400, "volumes.0.path"),
        ([{"name": "data"}, {"name": "data", "path": "/b"}], 400, "volumes.1.name"),
    ],
)
def test_bad_mounts_leave_nothing_behind(
    volume: MakeVolume, http: httpx.Client, client: Client, mounts: Any, status: int, field: str
) -> None:
    volume("data")
    before = {each.id for each in client.sandboxes.list()}
    refused = http.post("/sandboxes", json={"template": "base", "volumes": mounts})
    assert (refused.status_code, refused.json().get("field")) == (status, field), refused.text
    assert {each.id for each in client.sandboxes.list()} == before
    assert client.volumes.get("data")["attached_to"] == []


def test_a_template_has_places_for_only_some(volume: MakeVolume, http: httpx.Client) -> None:
    mounts = [{"name": volume(f"v{number}", 16)} for number in range(5)]
    refused = http.post("/sandboxes", json={"template": "base", "volumes": mounts})
    assert (refused.status_code, refused.json()["field"]) == (400, "volumes"), refused.text


def test_what_was_flushed_survives_a_killed_machine(
    volume: MakeVolume, create: Create, http: httpx.Client, client: Client
) -> None:
    volume("data")
    sandbox = create(volumes=[{"name": "data"}])
    write(sandbox, "flushed")
    sandbox.exec("sync /mnt/data/file", check=True)
    os.kill(pid_of(http, sandbox), signal.SIGKILL)
    eventually(lambda: sandbox.refresh().status == "failed", 60, "its end is noticed")
    assert client.volumes.get("data")["attached_to"] == []
    assert read(create(volumes=[{"name": "data"}])) == "flushed"


def test_a_sandbox_that_lost_its_memory_boots_with_its_volume(
    volume: MakeVolume, create: Create, http: httpx.Client, client: Client
) -> None:
    volume("data")
    sandbox = create(persistent=True, volumes=[{"name": "data", "path": "/srv/data"}])
    write(sandbox, "flushed", "/srv/data/file")
    sandbox.exec("sync", check=True)
    os.kill(pid_of(http, sandbox), signal.SIGKILL)
    eventually(lambda: sandbox.refresh().status == "hibernated", 60, "its end is noticed")
    assert [each["sandbox_id"] for each in client.volumes.get("data")["attached_to"]] == [sandbox.id]
    assert read(sandbox, "/srv/data/file") == "flushed"
    write(sandbox, "later", "/srv/data/file")
    sandbox.kill()
    assert read(create(volumes=[{"name": "data"}])) == "later"


def test_a_volume_is_made_once(http: httpx.Client, client: Client) -> None:
    made = [
        http.post("/volumes", json={"name": "data", "size_mb": 64}, headers={"idempotency-key": "volume-1"})
        for _ in range(2)
    ]
    assert [each.status_code for each in made] == [201, 201] and made[0].json() == made[1].json()
    client.volumes.delete("data")


def test_a_stopped_and_a_killed_server(place: Installation) -> None:
    with serving(place, **NONE_AHEAD) as (server, client):
        client.volumes.create("data", 64)
        sandbox = client.sandboxes.create("base", persistent=True, volumes=[{"name": "data"}])
        write(sandbox, "one")
        server.kill()
    with serving(place, **NONE_AHEAD) as (_, client):
        client.volumes.create("plain", 64)
        plain = client.sandboxes.create("base", volumes=[{"name": "plain"}])
        write(plain, "unflushed", "/mnt/plain/file")
        [holder] = client.volumes.get("data")["attached_to"]
        assert holder["sandbox_id"] == sandbox.id
        found = client.sandboxes.get(sandbox.id)
        assert read(found) == "one"
        write(found, "two")
        with pytest.raises(ConflictError, match=sandbox.id):
            client.sandboxes.create("base", volumes=[{"name": "data"}])
    with serving(place, **NONE_AHEAD) as (_, client):
        found = client.sandboxes.get(sandbox.id)
        eventually(lambda: found.refresh().status == "running", 60, "it is woken")
        assert read(found) == "two"
        found.kill()
        with client.sandboxes.create("base", volumes=[{"name": "data"}]) as another:
            assert read(another) == "two"
        assert client.sandboxes.get(plain.id).status == "failed"
        with client.sandboxes.create("base", volumes=[{"name": "plain"}]) as another:
            assert read(another, "/mnt/plain/file") == "unflushed"
        client.sandboxes.delete(plain.id)
        client.volumes.delete("plain")
        client.volumes.delete("data")
    assert place.left_behind() == []
    assert list((place.layout.engine / "pool" / "volumes").glob("*")) == []
