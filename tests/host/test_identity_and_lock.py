"""Which process is this, and who holds the lock: asked of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.host.lock import FileLock
from pandastack.host.processes.identity import alive, boot_id, identify, kill

HOLD = """
import sys
from pathlib import Path
from pandastack.host.lock import FileLock
with FileLock(Path(sys.argv[1])) as lock:
    getattr(lock, sys.argv[2])()
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_living_process(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    assert identity and identity == identify(child.pid)
    assert (identity.pid, identity.boot_id) == (child.pid, boot_id())
    assert alive(identity)


def test_a_name_with_brackets_and_spaces(tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        try:
            identity = identify(process.pid)
            assert identity and identity.started > 100
        finally:
            process.kill()


def test_a_zombie_is_dead(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    assert identity and kill(identity)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}").exists()
    assert not alive(identity)
    assert not kill(identity)


def test_a_later_process_with_the_same_pid_is_spared(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    assert identity
    earlier = replace(identity, started=identity.started - 1)
    assert not alive(earlier)
    assert not kill(earlier)
    assert not kill(replace(identity, boot_id="another boot"))
    assert child.poll() is None


def test_a_process_that_never_was() -> None:
    assert identify(2**22 + 1) is None


class Holder:
    """Another process that holds a lock."""

    def __init__(self, path: Path, kind: str) -> None:
        argv = [sys.executable, "-c", HOLD, str(path), kind]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout and self.process.stdout.readline() == b"held\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_lock_is_held_by_one_and_given_back_by_death(tmp_path: Path) -> None:
    path = tmp_path / "made" / "lock"
    holder = Holder(path, "exclusive")
    try:
        with FileLock(path) as lock:
            assert not lock.try_exclusive()
            holder.end()
            assert lock.try_exclusive()
    finally:
        holder.end()


def test_a_shared_lock_is_shared(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = Holder(path, "shared")
    try:
        with FileLock(path) as lock:
            lock.shared()
            assert not lock.try_exclusive()
            holder.end()
            assert lock.try_exclusive()
    finally:
        holder.end()


def test_leaving_the_block_releases(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock") as first:
        first.exclusive()
    with FileLock(tmp_path / "lock") as second:
        assert second.try_exclusive()


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock") as lock:
        lock.exclusive()
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with FileLock(tmp_path / "lock") as again:
            assert again.try_exclusive()
    finally:
        child.kill()
        child.wait()
