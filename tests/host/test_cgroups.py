"""Control groups: what is written where, and that the limits hold a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.host.cgroups import Groups, Limits, open_groups, place
from pandastack.host.cgroups.hierarchy import find_hierarchy, limiting_groups
from pandastack.host.cgroups.limits import plan_settings

V1 = """\
30 23 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
31 23 0:27 /docker/a /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 23 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
33 23 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
V2 = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
LIMITS = Limits(memory_bytes=64 << 20, cpus=0.5, threads=16)


def test_version_1_has_a_directory_for_each_controller() -> None:
    found = find_hierarchy(V1, "9:memory:/system/x\n4:cpu,cpuacct:/docker/a/b\n3:pids:/\n0::/\n")
    assert found is not None and found.version == 1
    assert found.own == {
        "memory": Path("/sys/fs/cgroup/memory/system/x"),
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct/b"),
        "pids": Path("/sys/fs/cgroup/pids"),
    }


def test_version_2_has_one_for_all() -> None:
    found = find_hierarchy(V2, "0::/system.slice/pandastack.service\n")
    assert found is not None and found.version == 2
    assert set(found.own.values()) == {Path("/sys/fs/cgroup/system.slice/pandastack.service")}


@pytest.mark.parametrize("mountinfo", ["", "x\n", V1.splitlines()[0]])
def test_a_host_without_them(mountinfo: str) -> None:
    assert find_hierarchy(mountinfo, "9:memory:/\n") is None


def test_the_same_limits_in_both_versions() -> None:
    assert ("memory", "memory.limit_in_bytes", str(64 << 20)) in plan_settings(1, LIMITS)
    assert ("cpu", "cpu.cfs_quota_us", "50000") in plan_settings(1, LIMITS)
    assert plan_settings(2, LIMITS) == [
        ("memory", "memory.max", str(64 << 20)),
        ("memory", "memory.swap.max", "0"),
        ("memory", "memory.oom.group", "1"),
        ("cpu", "cpu.max", "50000 100000"),
        ("cpu", "cpu.weight", "50"),
        ("pids", "pids.max", "16"),
    ]
    light = replace(LIMITS, weight=0.25)
    assert set(plan_settings(2, light)) ^ set(plan_settings(2, LIMITS)) == {
        ("cpu", "cpu.weight", "25"),
        ("cpu", "cpu.weight", "50"),
    }
    assert ("cpu", "cpu.shares", "256") in plan_settings(1, light)
    assert plan_settings(1, Limits(0, 0, 0)) == plan_settings(2, Limits(0, 0, 0)) == []


def test_membership_by_controller() -> None:
    assert limiting_groups("4:cpu,cpuacct:/a\n9:memory:/b\n3:pids:/\n") == {"memory": "/b", "cpu": "/a", "pids": "/"}
    assert limiting_groups("0::/c\n") == {"": "/c"}


@pytest.fixture
def groups() -> Iterator[Groups]:
    opened = open_groups(f"pandastack-test-{os.getpid()}")
    if opened is None:
        pytest.skip("this host lets no control groups be made")
    yield opened
    opened.sweep(())
    opened.close()
    assert not any(parent.exists() for _, parent in opened.parents)


def run(groups: Groups, program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a group with :data:`LIMITS`; it begins once it is placed."""
    argv = [sys.executable, "-c", f"input()\n{program}"]
    pipes = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipes, stdout=pipes, stderr=pipes, text=True) as process:
        place(process.pid, groups.make("one", LIMITS))
        out, err = process.communicate("\n", timeout=30)
    groups.remove("one")
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


@pytest.mark.root
def test_who_takes_more_memory_dies(groups: Groups) -> None:
    assert run(groups, "bytearray(200 << 20)").returncode == -9
    assert run(groups, "bytearray(8 << 20)").returncode == 0


@pytest.mark.root
def test_threads_are_counted(groups: Groups) -> None:
    program = "import threading, time\nfor _ in range(40): threading.Thread(target=time.sleep, args=(1,)).start()"
    assert "can't start new thread" in run(groups, program).stderr


@pytest.mark.root
def test_cpu_time_is_rationed(groups: Groups) -> None:
    """Half a CPU: two seconds of wall time give about one of CPU time."""
    program = "import time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass\nprint(time.process_time())"
    assert float(run(groups, program).stdout) < 1.5


@pytest.mark.root
def test_a_process_that_is_gone_cannot_be_placed(groups: Groups) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    directories = groups.make("one", LIMITS)
    with pytest.raises(OSError):
        place(process.pid, directories)


@pytest.mark.root
def test_what_a_killed_engine_left_is_swept(groups: Groups) -> None:
    left, kept = groups.make("left", LIMITS), groups.make("kept", LIMITS)
    groups.sweep({"kept"})
    assert not any(each.exists() for each in left)
    assert all(each.exists() for each in kept)
