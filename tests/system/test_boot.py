"""Sandboxes whose memory is lost, or may not be restored, boot from their disks."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from pandastack import Client, Sandbox
from pandastack.errors import ConflictError, NotFoundError
from tests.support.installation import NONE_AHEAD, Installation, Server, eventually, serving, shelves
from tests.support.machines import kill_machines, killed_at, pid_of, size_in

WHO = "hostname; cat /etc/machine-id /etc/hostname; grep 127.0.1.1 /etc/hosts; echo $FRUIT"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


def record_of(http: httpx.Client, sandbox: Sandbox) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"/sandboxes/{sandbox.id}").json()
    return found


def events_of(http: httpx.Client, sandbox: Sandbox) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get(f"/sandboxes/{sandbox.id}/events").json()["events"]
    return found


def types_of(http: httpx.Client, sandbox: Sandbox) -> list[str]:
    return [each["type"] for each in events_of(http, sandbox)]


def made_elsewhere(directory: Path, **changes: object) -> None:
    """Make a capture one of another host."""
    manifest = directory / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


def out(sandbox: Sandbox, cmd: str) -> str:
    return sandbox.exec(cmd, check=True).stdout


def test_a_hibernated_sandbox_of_another_host_boots_with_its_files(place: Installation) -> None:
    with serving(place) as (_, client):
        sandbox = client.sandboxes.create("base", persistent=True)
        out(sandbox, "mkdir -p /root/a/b; echo kept > /root/a/b/file; rm -f /etc/motd; ln -s file /root/a/b/link")
        process, checkpoint = sandbox.processes.start("sleep 1000"), sandbox.checkpoint("before")
        who, boot_id = out(sandbox, WHO), out(sandbox, BOOT_ID)
        sandbox.hibernate()
        made_elsewhere(place.layout.engine / "pool" / "asleep" / sandbox.id, cpu_flags="max:another")
    with serving(place, **NONE_AHEAD) as (server, client), server.http() as http:
        sandbox = client.sandboxes.get(sandbox.id)
        assert out(sandbox, "cat /root/a/b/link; test ! -e /etc/motd") == "kept\n"
        record = record_of(http, sandbox)
        assert (record["status"], record["memory"], record["boot_mode"]) == ("running", "lost", "boot")
        assert "was made with cpu_flags max:another, this host has" in record["memory_lost_reason"]
        assert (out(sandbox, WHO), out(sandbox, BOOT_ID) == boot_id) == (who, False)
        assert sandbox.lifecycle()["memory"] == "lost"
        with pytest.raises(NotFoundError) as gone:
            sandbox.processes.get(process.id)
        assert "ended with the sandbox's memory" in str(gone.value.hint)
        told = types_of(http, sandbox)
        assert told[-2:] == ["sandbox.memory_lost", "sandbox.woken"] and told.count("sandbox.memory_lost") == 1
        out(sandbox, "echo new > /root/a/new")
        assert [each.path for each in sandbox.diff(checkpoint.id).changes if "/root" in each.path] == ["/root/a/new"]
        # From now on it is a sandbox as any other: it sleeps, wakes and is copied with the memory that it has now.
        out(sandbox, "echo in memory > /dev/shm/file")
        sandbox.hibernate()
        with sandbox.fork() as child:
            assert out(child, "cat /dev/shm/file /root/a/b/file") == "in memory\nkept\n"
            assert out(child, BOOT_ID) != out(sandbox, BOOT_ID)
        sandbox.rewind(checkpoint.id)
        assert (record_of(http, sandbox)["memory"], out(sandbox, BOOT_ID)) == ("kept", boot_id)
        assert sandbox.processes.get(process.id).info.status == "running"
        sandbox.kill()
    assert (place.left_behind(), shelves(place)) == ([], [])


def test_a_snapshot_of_another_host_boots_under_a_name_of_its_own(
    server: Server, client: Client, http: httpx.Client
) -> None:
    with client.sandboxes.create("base") as sandbox:
        out(sandbox, "echo kept > /root/file")
        snapshot, checkpoint = sandbox.snapshot(), sandbox.checkpoint()
        saved = server.installation.layout.engine / "pool" / "saved"
        for name in (snapshot, checkpoint.id):
            made_elsewhere(saved / name, vmm="QEMU 99.0")
        with client.sandboxes.create(from_snapshot=snapshot) as other:
            assert out(other, "cat /root/file") == "kept\n"
            assert record_of(http, other)["memory"] == "lost"
            name = other.id[:8]
            assert out(other, WHO).splitlines()[0::2][:1] == [name]
            assert out(other, "grep -c 127.0.1.1 /etc/hosts; grep 127.0.1.1 /etc/hosts").split()[-1] == name
            assert out(other, "cat /etc/machine-id") != out(sandbox, "cat /etc/machine-id")
        with pytest.raises(ConflictError, match="was made with vmm QEMU 99"):
            client.sandboxes.create(from_snapshot=snapshot, on_memory_loss="fail")
        with pytest.raises(ConflictError, match="was made with vmm QEMU 99"):
            sandbox.rewind(checkpoint.id)  # a rewind is to a moment, and a boot would not be that
        assert (record_of(http, sandbox)["memory"], out(sandbox, "cat /root/file")) == ("kept", "kept\n")
        client.snapshots.delete(snapshot)


def test_a_machine_that_boots_has_the_size_that_it_had_or_was_asked_for(
    server: Server, client: Client, http: httpx.Client
) -> None:
    pool = server.installation.layout.engine / "pool"
    with client.sandboxes.create("base", cpu=2, memory_mb=2048, disk_gb=20) as sandbox:
        snapshot = sandbox.snapshot()
        made_elsewhere(pool / "saved" / snapshot, vmm="QEMU 99.0")
        with client.sandboxes.create(from_snapshot=snapshot, disk_gb=30) as other:
            record = record_of(http, other)
            assert (record["memory"], record["cpu"], record["memory_mb"], record["disk_gb"]) == ("lost", 2, 2048, 30)
            cpus, memory, disk = size_in(other)
            assert cpus == 2 and 1.8 < memory < 2 and 29 < disk <= 30
            out(other, "head -c 1M /dev/urandom > /root/new && sync")
            other.hibernate()
            assert size_in(other) == (cpus, memory, disk)  # what it is captured with is what it wakes with
            assert [each.path for each in other.diff().changes if "/root" in each.path] == ["/root/new"]
        client.snapshots.delete(snapshot)
    with client.sandboxes.create("base") as small:
        snapshot = small.snapshot()
        made_elsewhere(pool / "saved" / snapshot, vmm="QEMU 99.0")
        with client.sandboxes.create(from_snapshot=snapshot) as other:
            cpus, memory, _ = size_in(other)
            assert cpus == 1 and memory < 0.5  # its hardware has more
        client.snapshots.delete(snapshot)


def test_a_killed_machine_of_a_persistent_sandbox_comes_back(client: Client, http: httpx.Client) -> None:
    with client.sandboxes.create("base") as sandbox:
        sandbox.set_lifecycle(persistent=True)
        out(sandbox, "echo kept > /root/file; sync")
        os.kill(pid_of(http, sandbox), signal.SIGKILL)
        eventually(lambda: sandbox.refresh().status == "hibernated", 60, "it is hibernated")
        record = record_of(http, sandbox)
        assert (record["memory"], record["memory_lost_reason"]) == ("lost", "killed by SIGKILL")
        written = ["vm.died", "sandbox.memory_lost"]  # the status is seen before the store has written it
        eventually(lambda: types_of(http, sandbox)[-2:] == written, 60, "its events are written")
        assert out(sandbox, "cat /root/file") == "kept\n"
        assert (record_of(http, sandbox)["status"], record_of(http, sandbox)["boot_mode"]) == ("running", "boot")
        assert types_of(http, sandbox).count("sandbox.memory_lost") == 1


def test_a_machine_that_is_killed_in_the_middle_of_writes(client: Client, http: httpx.Client) -> None:
    """Twice, so that a repaired disk is torn again. What was synced is there and whole; the rest may be."""
    writes = "i=0; while :; do i=$((i+1)); mkdir -p /root/d$((i%50)); seq $i $((i+2000)) > /root/d$((i%50))/f$i; done"
    with client.sandboxes.create("base") as sandbox:
        sandbox.set_lifecycle(persistent=True)
        for round_ in range(2):
            out(sandbox, f"seq 100000 > /root/kept{round_}; sha256sum /root/kept* > /root/sums; sync")
            sandbox.processes.start(writes)
            out(sandbox, "while [ $(find /root -name 'f*' | wc -l) -lt 100 ]; do sleep 0.2; done")
            os.kill(pid_of(http, sandbox), signal.SIGKILL)
            eventually(lambda: sandbox.refresh().status == "hibernated", 60, "it is hibernated")
            out(sandbox, "sha256sum -c /root/sums")
            out(sandbox, "rm -rf /root/d*; mkdir /root/new; echo new > /root/new/file; sync; cat /root/new/file")
            out(sandbox, "rm -r /root/new; ! dmesg | grep -i 'EXT4-fs error'")


def test_an_ephemeral_sandbox_or_one_that_prefers_to_fail_is_not_booted(
    server: Server, client: Client, http: httpx.Client
) -> None:
    with client.sandboxes.create("base") as plain, client.sandboxes.create("base", on_memory_loss="fail") as strict:
        strict.set_lifecycle(persistent=True)
        for each in (plain, strict):
            os.kill(pid_of(http, each), signal.SIGKILL)
            eventually(lambda each=each: each.refresh().status == "failed", 60, "it has failed")  # type: ignore[misc]
        eventually(lambda: not {plain.id, strict.id} & _asleep(server.installation), 60, "no disk is kept")


def _asleep(place: Installation) -> set[str]:
    return {each.rpartition("/")[2] for each in shelves(place)}


def test_a_restart_of_the_host_loses_memory_and_no_files(place: Installation) -> None:
    with serving(place) as (server, client):
        kept, plain = client.sandboxes.create("base", persistent=True), client.sandboxes.create("base")
        out(kept, "echo kept > /root/file; sync")
        who = out(kept, WHO)
        server.kill()
        kill_machines(place)
    with serving(place, **NONE_AHEAD) as (server, client), server.http() as http:
        found = client.sandboxes.get(kept.id)
        assert (found.status, found.lifecycle()["memory"]) == ("hibernated", "lost")
        assert record_of(http, found)["memory_lost_reason"] == "its machine ended while no server ran"
        assert client.sandboxes.get(plain.id).status == "failed"
        found.wake()
        assert (out(found, "cat /root/file"), out(found, WHO)) == ("kept\n", who)
        server.kill()  # a machine that has booted is adopted as any other
    with serving(place, **NONE_AHEAD) as (server, client):
        found = client.sandboxes.get(kept.id)
        assert (found.status, out(found, "cat /root/file")) == ("running", "kept\n")
        assert found.lifecycle()["memory"] == "lost"
        for each in (kept, plain):
            client.sandboxes.delete(each.id)
    assert (place.left_behind(), shelves(place)) == ([], [])


@killed_at("claimed", "awake", later=["planned", "blank", "running"])
def test_killed_in_the_middle_of_a_boot(place: Installation, point: str) -> None:
    """Its disks are never lost, wherever the server was."""
    with serving(place) as (server, client):
        sandbox = client.sandboxes.create("base", persistent=True)
        out(sandbox, "echo kept > /root/file; sync")
        server.kill()
        kill_machines(place)
    with serving(place, **NONE_AHEAD, PANDASTACK_CRASH_AT=point) as (server, client):
        with pytest.raises(Exception):  # noqa: B017  whatever a client makes of a server that is gone
            client.sandboxes.get(sandbox.id).wake()
        server.process.wait(60)
    with serving(place, **NONE_AHEAD) as (server, client):
        found = client.sandboxes.get(sandbox.id)
        assert found.status == ("running" if point in ("running", "awake") else "hibernated")
        assert (out(found, "cat /root/file"), found.lifecycle()["memory"]) == ("kept\n", "lost")
        found.kill()
    assert (place.left_behind(), shelves(place)) == ([], [])
