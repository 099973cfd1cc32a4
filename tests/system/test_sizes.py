"""Sizes at create: what a guest sees of them, and what holds it to them whatever it does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pandastack import BadRequestError, Client, Sandbox
from pandastack.host.cgroups import limiting_groups
from tests.support.installation import Create, Server
from tests.support.machines import pid_of, size_in


@pytest.fixture(scope="module")
def large(client: Client) -> Iterator[Sandbox]:
    with client.sandboxes.create("base", cpu=2, memory_mb=2000, disk_gb=20, ttl_seconds=3600) as sandbox:
        yield sandbox


def size_of(http: httpx.Client, sandbox: Sandbox) -> tuple[int, int, int]:
    """What its record says."""
    record = http.get(f"/sandboxes/{sandbox.id}").json()
    return record["cpu"], record["memory_mb"], record["disk_gb"]


def assert_large(http: httpx.Client, sandbox: Sandbox, disk_gb: int = 20) -> None:
    assert size_of(http, sandbox) == (2, 2048, disk_gb)
    cpus, memory, disk = size_in(sandbox)
    assert cpus == 2 and 1.8 < memory < 2 and 0.95 * disk_gb < disk <= disk_gb


def test_a_sandbox_gets_the_size_that_it_is_created_with(large: Sandbox, http: httpx.Client) -> None:
    assert_large(http, large)
    assert (large.cpu, large.memory_mb) == (2, 2048)
    assert large.exec("dd if=/dev/zero of=/dev/shm/much bs=1M count=700 && rm /dev/shm/much").exit_code == 0


def test_others_stay_as_they_are(large: Sandbox, sandbox: Sandbox, http: httpx.Client) -> None:
    cpus, memory, disk = size_in(sandbox)
    assert size_of(http, sandbox) == (1, 512, 10)
    assert cpus == 1 and memory < 0.5 and 9 < disk <= 10


def test_its_copies_have_its_size(large: Sandbox, client: Client, http: httpx.Client) -> None:
    fork = large.fork()
    with fork:
        assert_large(http, fork)
        fork.hibernate()
        fork.wake()
        assert_large(http, fork)
        snapshot = fork.snapshot()
    try:
        with client.sandboxes.create(from_snapshot=snapshot, disk_gb=30) as copy:
            assert_large(http, copy, disk_gb=30)
            assert copy.exec("head -c 1M /dev/urandom > /root/new && sync && sha256sum /root/new").exit_code == 0
            assert [each.path for each in copy.diff().changes if "/root" in each.path] == ["/root/new"]
        with pytest.raises(BadRequestError, match="memory_mb: a sandbox from this snapshot has 2048"):
            client.sandboxes.create(from_snapshot=snapshot, memory_mb=512)
    finally:
        client.snapshots.delete(snapshot)


def test_a_sandbox_may_be_smaller_than_its_template(create: Create) -> None:
    small = create("code-interpreter", cpu=1, memory_mb=512)
    cpus, memory, _ = size_in(small)
    assert cpus == 1 and memory < 0.5
    assert small.run_code("print(1 + 1)").stdout == "2\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cpu", 0),
        ("cpu", 3),
        ("cpu", 10**12),
        ("memory_mb", 511),
        ("memory_mb", 2049),
        ("disk_gb", 9),
        ("disk_gb", 2000),
    ],
)
def test_a_size_that_cannot_be_is_refused_before_anything_is_made(http: httpx.Client, field: str, value: int) -> None:
    before = http.get("/sandboxes").json()
    refused = http.post("/sandboxes", json={"template": "base", field: value})
    assert (refused.status_code, refused.json()["field"]) == (400, field)
    assert http.get("/sandboxes").json() == before


@pytest.mark.root
def test_a_guest_that_helps_itself_is_held_by_its_control_group(
    server: Server, http: httpx.Client, create: Create, large: Sandbox
) -> None:
    if not httpx.get(f"{server.url}/version").json()["confinement"]["cgroup"]:
        pytest.skip("this host lets no control groups be made")
    greedy = create("base")
    online = "for each in /sys/devices/system/{cpu/cpu1/online,memory/memory*/state}"
    greedy.exec(f"bash -c '{online}; do echo 1 > $each || echo online > $each; done' 2>/dev/null")
    cpus, memory, _ = size_in(greedy)
    assert cpus == 2 and memory > 1.8  # it sees all of the machine's hardware
    assert limits_of(pid_of(http, greedy)) == (512 + 320, 1.5)
    assert limits_of(pid_of(http, large)) == (2048 + 320, 2.5)


def limits_of(pid: int) -> tuple[int, float]:
    """MiB and CPUs that the group of a process may use."""
    assert limiting_groups(Path(f"/proc/{pid}/cgroup").read_text())
    directories = [
        each.parent for each in Path("/sys/fs/cgroup").rglob("cgroup.procs") if str(pid) in each.read_text().split()
    ]
    files = {file.name: file.read_text() for each in directories for file in each.iterdir() if file.name in FILES}
    if "cpu.max" in files:
        quota, period = map(int, files["cpu.max"].split())
        return int(files["memory.max"]) >> 20, quota / period
    memory = int(files["memory.limit_in_bytes"])
    return memory >> 20, int(files["cpu.cfs_quota_us"]) / int(files["cpu.cfs_period_us"])


FILES = {"memory.max", "cpu.max", "memory.limit_in_bytes", "cpu.cfs_quota_us", "cpu.cfs_period_us"}
