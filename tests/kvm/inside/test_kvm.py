"""The life of sandboxes with ``-accel kvm``: create, command, fork, hibernate, wake, snapshot, a killed server."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx

from pandastack import Client, Sandbox
from tests.support.installation import Installation, Server, eventually

COUNT = (
    "setsid sh -c 'i=0; while :; do i=$((i+1)); echo $i > /run/n; mv /run/n /run/i; sleep 0.05; done' <&- >&- 2>&- & "
    "until [ -e /run/i ]; do sleep 0.05; done"
)


def counter(sandbox: Sandbox) -> int:
    return int(sandbox.exec("cat /run/i", check=True).stdout)


def assert_counting(sandbox: Sandbox, since: int = 0) -> None:
    """The loop runs, and what it has counted before was not lost."""
    before = counter(sandbox)
    assert before >= since
    eventually(lambda: counter(sandbox) > before, 60, "a higher count")


def assert_same_time(sandbox: Sandbox) -> None:
    """The guest's clock is the host's, within what an emulated host needs to ask for it."""
    earliest = time.time()
    guest = float(sandbox.exec("date +%s.%N", check=True).stdout)
    assert earliest - 0.2 <= guest <= time.time() + 0.2


def test_machines_run_with_kvm_and_the_isolation_is_named(host: Installation, kvm: Server, kvm_client: Client) -> None:
    version = httpx.get(f"{kvm.url}/version").json()
    assert version["accelerator"] == "kvm"
    assert "VT-x/AMD-V" in version["isolation"]
    with kvm_client.sandboxes.create("base"):
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in host.machines()]
    assert lines and all(b"\0-accel\0kvm\0" in line for line in lines)


def test_the_guest_knows_its_hypervisor_and_clock(kvm_client: Client) -> None:
    with kvm_client.sandboxes.create("base") as sandbox:
        clocks = sandbox.exec("cat /sys/devices/system/clocksource/*/available_clocksource", check=True).stdout
        assert "kvm-clock" in clocks.split()
        flags = sandbox.exec("grep -m1 ^flags /proc/cpuinfo", check=True).stdout.split()
        assert "hypervisor" in flags
        assert_same_time(sandbox)


def test_two_restores_of_one_snapshot_share_no_randomness(kvm_client: Client) -> None:
    draw = "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/boot_id /etc/machine-id; hostname"
    with kvm_client.sandboxes.create("base") as one, kvm_client.sandboxes.create("base") as other:
        lines = [each.exec(draw, check=True).stdout.splitlines() for each in (one, other)]
    assert len(lines[0]) == 4
    assert not set(lines[0]) & set(lines[1])


def test_a_fork_continues_in_both(kvm_client: Client) -> None:
    with kvm_client.sandboxes.create("base") as parent:
        parent.exec(COUNT, check=True)
        before = counter(parent)
        with parent.fork() as child:
            assert_counting(parent, before)
            assert_counting(child, before)


def test_hibernate_and_wake_keep_memory_and_clock(kvm_client: Client) -> None:
    with kvm_client.sandboxes.create("base") as sandbox:
        sandbox.exec(COUNT, check=True)
        before = counter(sandbox)
        sandbox.hibernate()
        time.sleep(3)
        sandbox.wake()
        assert_counting(sandbox, before)
        assert_same_time(sandbox)


def test_a_snapshot_starts_others(kvm_client: Client) -> None:
    with kvm_client.sandboxes.create("base") as sandbox:
        sandbox.exec("echo kept > /dev/shm/memory; echo kept > /root/disk", check=True)
        snapshot = sandbox.snapshot()
    with kvm_client.sandboxes.create(from_snapshot=snapshot) as copy:
        assert copy.exec("cat /dev/shm/memory /root/disk", check=True).stdout == "kept\nkept\n"
    kvm_client.snapshots.delete(snapshot)


def test_a_snapshot_made_under_emulation_is_refused(host: Installation, kvm: Server, kvm_client: Client) -> None:
    """The server requires KVM; the accelerator that a machine was captured with is in every manifest."""
    with kvm_client.sandboxes.create("base") as sandbox:
        snapshot = sandbox.snapshot()
    path = host.layout.engine / "pool" / "saved" / snapshot / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "accelerator": "tcg"}))
    with kvm.http() as http:
        answer = http.post("/sandboxes", json={"from_snapshot": snapshot})
    assert answer.status_code == 409, answer.text
    assert "software emulation" in answer.json()["error"]
    kvm_client.snapshots.delete(snapshot)


def test_a_template_of_another_cpu_is_refused(host: Installation, kvm: Server) -> None:
    """With KVM the guest sees the host's CPU, so what was captured on another one cannot be restored."""
    with kvm.http() as http:
        made = http.post("/sandboxes", json={"template": "base"}).json()
        snapshot = http.post(f"/sandboxes/{made['id']}/snapshots").json()["id"]
        http.delete(f"/sandboxes/{made['id']}")
        path = host.layout.engine / "pool" / "saved" / snapshot / "manifest.json"
        manifest = json.loads(path.read_text())
        assert manifest["accelerator"] == "kvm" and manifest["cpu_flags"].startswith("host:")
        path.write_text(json.dumps({**manifest, "cpu_flags": "host:" + "0" * 16}))
        answer = http.post("/sandboxes", json={"from_snapshot": snapshot, "on_memory_loss": "fail"})
        assert answer.status_code == 409, answer.text
        assert "cpu_flags" in answer.json()["error"]
        http.delete(f"/snapshots/{snapshot}")


def test_sandboxes_survive_a_killed_server(host: Installation) -> None:
    with host.serving() as server, Client(server.url, server.token, timeout=600) as client:
        sandbox = client.sandboxes.create("base", persistent=True)
        sandbox.exec(COUNT, check=True)
        before = counter(sandbox)
        server.kill()
    with host.serving() as server, Client(server.url, server.token, timeout=600) as client:
        found = client.sandboxes.get(sandbox.id)
        assert_counting(found, before)
        found.kill()
