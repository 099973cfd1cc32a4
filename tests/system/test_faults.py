"""When a machine or its guest goes wrong, its sandbox fails and nothing else does."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from pandastack import BadRequestError, ExecInterrupted, NotFoundError, Sandbox, ServerError
from pandastack.host.processes.confinement import confinement_of
from pandastack.host.processes.descriptors import descriptors
from pandastack.host.processes.priority import oom_score
from pandastack.vmm.qemu.machine import NICE
from tests.support.installation import Create, Server, eventually, machine_processes
from tests.support.machines import directories_of, pid_of

CAP_SYS_RESOURCE = 1 << 24
"""capabilities(7)."""

WRITE_TO_THE_CHANNEL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
pidfd = libc.syscall(434, 1, 0)
number = next(int(n) for n in os.listdir("/proc/1/fd") if "vport" in os.readlink(f"/proc/1/fd/{n}"))
port = libc.syscall(438, pidfd, number, 0)
assert port >= 0, os.strerror(ctypes.get_errno())
while True:
    os.write(port, GARBAGE)
"""
"""Root in the guest takes the agent's own port, pidfd_getfd(2): only one process can open it."""


def status(http: httpx.Client, sandbox: Sandbox) -> str:
    return str(http.get(f"/sandboxes/{sandbox.id}").json()["status"])


def events(http: httpx.Client, sandbox: Sandbox) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get(f"/sandboxes/{sandbox.id}/events").json()["events"]
    return found


@pytest.mark.parametrize(
    "garbage",
    ["b'\\xff' * 4096", "os.urandom(4096)", "b'\\0' * 4096", "b'\\x01\\0\\0\\0\\x16\\x01\\0\\0\\0\\x99'"],
    ids=["too long", "random", "endless padding", "a wrong result"],
)
def test_garbage_on_the_channel_is_the_guests_own_problem(
    server: Server, http: httpx.Client, create: Create, sandbox: Sandbox, garbage: str
) -> None:
    hostile = create()
    hostile.filesystem.write("/root/hostile.py", WRITE_TO_THE_CHANNEL.replace("GARBAGE", garbage))
    answer: list[httpx.Response] = []

    def attack() -> None:
        body = {"cmd": "exec python3 /root/hostile.py", "timeout_seconds": 30}  # a busy host starts it late
        answer.append(http.post(f"/sandboxes/{hostile.id}/exec", json=body))

    thread = threading.Thread(target=attack)
    thread.start()
    assert sandbox.exec("echo a neighbour", timeout_seconds=20).stdout == "a neighbour\n"
    thread.join(60)
    assert answer[0].status_code >= 500
    assert server.process.poll() is None
    if "0' * 4096" not in garbage:  # padding is no offence: such a guest only wastes its own time
        eventually(lambda: status(http, hostile) == "failed", 5, "the sandbox has failed")
    assert http.delete(f"/sandboxes/{hostile.id}").status_code == 204
    assert create().exec("echo the next", check=True).stdout == "the next\n"


def test_a_killed_machine_fails_its_sandbox_within_a_second(
    server: Server, http: httpx.Client, create: Create, sandbox: Sandbox
) -> None:
    victim, neighbour = create(), pid_of(http, sandbox)
    pid = pid_of(http, victim)
    directories = directories_of(server, pid)
    assert all(each.exists() for each in directories)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: status(http, victim) == "failed", 1, "the sandbox has failed")
    eventually(lambda: not any(each.exists() for each in directories), 5, "disk and sockets are gone")
    eventually(lambda: events(http, victim)[-1]["type"] == "vm.died", 5, "the event is there")
    died = events(http, victim)[-1]
    assert (died["payload"]["pid"], died["payload"]["reason"]) == (pid, "killed by SIGKILL")
    with pytest.raises(BadRequestError, match="has failed: killed by SIGKILL"):
        victim.exec("true")
    assert (sandbox.exec("echo unharmed").stdout, pid_of(http, sandbox)) == ("unharmed\n", neighbour)
    victim.kill()
    with pytest.raises(NotFoundError):
        victim.refresh()


def test_a_command_whose_machine_is_killed_does_not_hang(http: httpx.Client, create: Create) -> None:
    victim = create()
    pid = pid_of(http, victim)
    killer = threading.Timer(1.0, os.kill, (pid, signal.SIGKILL))
    killer.start()
    with pytest.raises((ServerError, ExecInterrupted)):
        victim.exec("sleep 60")
    killer.join()
    other = create()
    killer = threading.Timer(1.0, os.kill, (pid_of(http, other), signal.SIGKILL))
    killer.start()
    with pytest.raises((ServerError, ExecInterrupted)):
        other.exec_stream("echo begun; sleep 60")
    killer.join()


def test_a_guest_that_powers_off_has_failed(http: httpx.Client, create: Create) -> None:
    victim = create()
    with pytest.raises((ServerError, ExecInterrupted)):
        victim.exec("echo o > /proc/sysrq-trigger; echo b > /proc/sysrq-trigger; sleep 30")
    eventually(lambda: status(http, victim) == "failed", 5, "the sandbox has failed")


def test_a_machine_that_hangs_can_be_deleted(http: httpx.Client, create: Create) -> None:
    victim = create()
    pid = pid_of(http, victim)
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    assert http.delete(f"/sandboxes/{victim.id}").status_code == 204
    assert time.monotonic() - started < 10
    assert pid not in machine_processes()


def test_a_ready_machine_that_dies_is_not_handed_out(server: Server, http: httpx.Client, create: Create) -> None:
    """Those that wait for a guest: all of them are killed, and the next creates do not notice."""
    metrics = [http.get(f"/sandboxes/{each['id']}/metrics").json() for each in http.get("/sandboxes").json()]
    used = {each["pid"] for each in metrics if "pid" in each}  # one that sleeps has none
    waiting = set(server.installation.machines()) - used
    directories = [directory for pid in waiting for directory in directories_of(server, pid)]
    for pid in waiting:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(each.exists() for each in directories), 5, "the server has noticed")
    assert [create().exec("echo ok", check=True).stdout for _ in range(3)] == ["ok\n"] * 3


@pytest.mark.parametrize("milliseconds", [0, 10, 20, 30, 40, 60, 80])
def test_a_machine_that_dies_while_it_is_made(
    server: Server, http: httpx.Client, create: Create, milliseconds: int
) -> None:
    """At whatever moment of it; each create makes the server prepare another one."""
    before = set(server.installation.machines())
    create().kill()
    made = eventually(lambda: set(server.installation.machines()) - before, 10, "another machine is made")
    time.sleep(milliseconds / 1000)  # the moment is what the test varies
    for pid in made:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert create().exec("echo ok", check=True).stdout == "ok\n"
    assert server.process.poll() is None


def test_deleting_ends_everything(server: Server, http: httpx.Client, create: Create) -> None:
    sandbox = create()
    pid = pid_of(http, sandbox)
    directories = directories_of(server, pid)
    sandbox.kill()
    assert pid not in machine_processes()
    assert not any(each.exists() for each in directories)


def test_a_delete_ends_a_running_command(create: Create) -> None:
    sandbox = create()
    deletion = threading.Timer(1.0, sandbox.kill)
    deletion.start()
    with pytest.raises((ServerError, ExecInterrupted, NotFoundError, BadRequestError)):
        sandbox.exec("sleep 60")
    deletion.join()


@pytest.mark.root
def test_machines_run_as_users_of_their_own(server: Server, http: httpx.Client, create: Create) -> None:
    processes = [Path(f"/proc/{pid_of(http, create())}") for _ in range(2)]
    owners = [each.stat().st_uid for each in processes]
    assert len({*owners, 0}) == 3
    for each in processes:
        fields = dict(line.split(":\t", 1) for line in (each / "status").read_text().splitlines() if ":\t" in line)
        assert int(fields["CapEff"], 16) == 0
        assert fields["Seccomp"] == "2"
        assert (each / "ns" / "net").readlink() != Path("/proc/self/ns/net").readlink()


def test_a_machine_gives_way_to_the_server(server: Server, http: httpx.Client, create: Create) -> None:
    pid = pid_of(http, create())
    assert oom_score(pid) == 900
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, server.process.pid) + NICE
    if confinement_of(server.process.pid).capabilities & CAP_SYS_RESOURCE:
        assert oom_score(server.process.pid) == -500


def test_no_machine_can_write_to_a_file_of_another(server: Server, http: httpx.Client, create: Create) -> None:
    """Whatever a VMM that was taken over holds open for writing is its own machine's and no one else's."""
    sandboxes = [create(), create()]
    sandboxes[0].hibernate()
    sandboxes[0].exec("true", check=True)
    pids = {pid_of(http, each) for each in sandboxes}
    for pid in pids:
        own, _ = directories_of(server, pid)
        for each in descriptors(pid):
            if each.writable and each.link.is_file():
                assert each.link.readlink().parent == own
                assert each.link.stat().st_nlink == 1
