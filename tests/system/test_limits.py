"""Control groups of real machines, and version 2's on a kernel that has them: a sandbox's own."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import httpx
import pytest

import pandastack.host.cgroups
from pandastack import Client
from pandastack.errors import PandastackError
from pandastack.host.cgroups import limiting_groups
from tests.support.installation import Server, eventually
from tests.support.machines import pid_of

AS_A_SERVICE = """
cd /sys/fs/cgroup && echo +memory +cpu +pids > cgroup.subtree_control && mkdir pandastack.service &&
echo $$ > pandastack.service/cgroup.procs &&
"""
"""What systemd does for a service with ``Delegate=yes``."""

LOOK = """
import os, subprocess, sys, types
sys.path.insert(0, "/root/package")
from pandastack.host.cgroups import Limits, open_groups, place
groups = open_groups("machines")
assert groups is not None and groups.version == 2, groups
directories = groups.make("one", Limits(memory_bytes=64 << 20, cpus=0.5, threads=8))
child = subprocess.Popen([sys.executable, "-c", "input(); bytearray(200 << 20)"], stdin=subprocess.PIPE)
place(child.pid, directories)
print((directories[0] / "memory.max").read_text().strip(), (directories[0] / "cpu.max").read_text().strip())
child.communicate(b"\\n")
print(child.returncode)
groups.remove("one")
groups.close()
print(directories[0].exists())
"""


@pytest.mark.root
def test_a_machine_has_limits_of_its_own_and_dies_alone(server: Server, client: Client) -> None:
    if not httpx.get(f"{server.url}/version").json()["confinement"]["cgroup"]:
        pytest.skip("this host lets no control groups be made")
    with client.sandboxes.create("base") as one, client.sandboxes.create("base") as other, server.http() as http:
        pid = pid_of(http, one)
        group = limiting_groups(Path(f"/proc/{pid}/cgroup").read_text())
        assert group != limiting_groups(Path(f"/proc/{pid_of(http, other)}/cgroup").read_text())
        found = [each for each in Path("/sys/fs/cgroup").rglob("cgroup.procs") if str(pid) in each.read_text().split()]
        files = [each.with_name(name) for each in found for name in ("memory.limit_in_bytes", "memory.max")]
        (memory,) = {each for each in files if each.exists()}
        assert int(memory.read_text()) == (one.memory_mb + 320) << 20
        memory.write_text(str(200 << 20))  # stands for a VMM that takes more than it may
        with suppress(PandastackError):
            one.exec("head -c 300M /dev/zero > /dev/shm/much", timeout_seconds=60)
        eventually(lambda: one.refresh().status == "failed", 30, "the machine is killed")
        assert other.exec("echo fine", check=True).stdout == "fine\n"
        eventually(lambda: not memory.exists(), 60, "its control group is removed")


def test_version_2(client: Client) -> None:
    package = Path(pandastack.host.cgroups.__file__).parent
    with client.sandboxes.create("base") as sandbox:
        for name in ("", "host/"):
            sandbox.filesystem.write(f"/root/package/pandastack/{name}__init__.py", "")
        for each in package.glob("*.py"):
            sandbox.filesystem.write(f"/root/package/pandastack/host/cgroups/{each.name}", each.read_text())
        sandbox.filesystem.write("/root/look.py", LOOK)
        said = sandbox.exec(AS_A_SERVICE + "exec python3 /root/look.py")
        assert said.stdout == "67108864 50000 100000\n-9\nFalse\n", said.stderr
