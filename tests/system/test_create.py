"""A sandbox is there when create returns, and it is nobody else."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from pandastack import Client, NotFoundError, Sandbox
from pandastack.host import facts
from tests.support.installation import Create

WHO = """
cat /etc/machine-id; hostname; cat /proc/sys/kernel/hostname
python3 -c 'import os, uuid; print(os.urandom(16).hex()); print(uuid.uuid4())'
head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid; mktemp -u
"""


def test_it_executes_at_once(http: httpx.Client) -> None:
    created = http.post("/sandboxes", json={"template": "base"})
    assert created.status_code == 201
    sandbox = created.json()
    ran = http.post(f"/sandboxes/{sandbox['id']}/exec", json={"cmd": "echo here"})
    assert (ran.status_code, ran.json()["stdout"]) == (200, "here\n")
    assert (sandbox["status"], sandbox["boot_mode"], sandbox["template"]) == ("running", "snapshot", "base")
    assert (sandbox["cpu"], sandbox["memory_mb"]) == (1, 512)
    assert http.delete(f"/sandboxes/{sandbox['id']}").status_code == 204
    assert http.get(f"/sandboxes/{sandbox['id']}").status_code == 404


def test_the_machine_is_what_the_record_says(sandbox: Sandbox) -> None:
    memory_kb, cpus = map(int, sandbox.exec("awk '/MemTotal/ {print $2}' /proc/meminfo; nproc").stdout.split())
    assert cpus == sandbox.cpu
    assert 0.75 * sandbox.memory_mb < memory_kb / 1024 <= sandbox.memory_mb


def test_two_restores_of_one_snapshot_are_two_machines(create: Create) -> None:
    one, other = (create().exec(WHO, check=True).stdout.splitlines() for _ in range(2))
    assert len(one) == len(other) == 8
    assert [line for line in one if line in other] == []


def test_the_machine_id_is_a_machine_id_and_systemwide(sandbox: Sandbox) -> None:
    found = sandbox.exec("cat /etc/machine-id; hostname; getent hosts $(hostname)", check=True).stdout.split()
    assert len(found[0]) == 32 and int(found[0], 16)
    assert found[1] == sandbox.id[:8]
    assert found[-1] == found[1]


def test_the_clock_is_right_although_the_snapshot_is_old(create: Create) -> None:
    sandbox = create()
    before = time.time()
    inside = float(sandbox.exec("date +%s.%N", check=True).stdout)
    assert before - 1 < inside < time.time() + 1


def test_the_clock_runs_at_the_right_rate(create: Create) -> None:
    sandbox = create()
    started = time.monotonic()
    first, last = map(float, sandbox.exec("date +%s.%N; sleep 3; date +%s.%N", check=True).stdout.split())
    assert 2.9 < last - first < time.monotonic() - started + 0.2


def test_the_environment_is_that_of_the_template(client: Client, sandbox: Sandbox) -> None:
    assert sandbox.exec("echo $HOME $LANG; pwd; id -un", check=True).stdout == "/root C.UTF-8\n/root\nroot\n"
    with client.sandboxes.create("code-interpreter") as other:
        assert other.exec("echo $MPLCONFIGDIR", check=True).stdout == "/var/cache/matplotlib\n"


def test_what_a_sandbox_writes_is_its_own(create: Create) -> None:
    one, other = create(), create()
    one.exec("echo mine > /root/mark; rm -rf /usr/bin/git", check=True)
    assert other.exec("ls /root /usr/bin/git", check=True).stdout == "/usr/bin/git\n\n/root:\n"


def test_more_at_once_than_machines_are_ready(client: Client, create: Create) -> None:
    with ThreadPoolExecutor(10) as threads:
        sandboxes = list(threads.map(lambda _: create(), range(10)))
        said = list(threads.map(lambda each: each.exec("cat /etc/machine-id", check=True).stdout, sandboxes))
    assert len({each.id for each in sandboxes}) == len(set(said)) == 10


def test_there_is_no_network(sandbox: Sandbox) -> None:
    assert sandbox.exec("ls /sys/class/net; cat /sys/class/net/eth0/carrier").stdout.split() == [
        "eth0",
        "lo",
        "1" if facts.is_root() else "0",
    ]
    assert sandbox.exec("curl -sfm 2 http://10.0.2.2/").exit_code not in (0, 28)


def test_the_kernel_is_not_the_hosts(sandbox: Sandbox) -> None:
    release, first_process = sandbox.exec("uname -r; cat /proc/1/comm", check=True).stdout.split()
    made_with = sandbox.client.templates.get("base").meta or {}
    assert (release, first_process) == (made_with["kernel_release"], "init")


def test_the_default_of_other_clients_is_an_alias_of_base(create: Create) -> None:
    assert create("ubuntu-24.04").template == "base"


def test_lists_are_newest_first_and_forget_the_deleted(client: Client, create: Create) -> None:
    first, second = create(), create()
    listed = [each.id for each in client.sandboxes.list()]
    assert listed.index(second.id) < listed.index(first.id)
    first.kill()
    assert first.id not in [each.id for each in client.sandboxes.list()]
    with pytest.raises(NotFoundError):
        first.exec("true")


def test_the_console_can_be_read(sandbox: Sandbox, http: httpx.Client) -> None:
    sandbox.exec("echo to the console > /dev/console", check=True)
    log = http.get(f"/sandboxes/{sandbox.id}/logs")
    assert log.headers["content-type"] == "text/plain; charset=utf-8"
    assert "to the console" in log.text
