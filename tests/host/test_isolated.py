"""Programs in namespaces of their own: what they see, and how they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest

from pandastack.host.processes.isolated import Isolation, isolated
from pandastack.host.processes.run import CommandError
from tests.support.installation import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.root]

UID = 0x7FFF_0000

PYTHON = "/usr/bin/python3"
"""One that every user may run."""


async def said(isolation: Isolation, script: str) -> tuple[int, str]:
    async with isolated(["/bin/sh", "-c", script], isolation) as running:
        assert running.process.stdout is not None
        out = b"".join([chunk async for chunk in running.process.stdout])
        return await running.process.wait(), out.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that only we can reach."""
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed" / "own").mkdir()
    return tmp_path / "closed" / "own"


def isolation(folder: Path, files: Mapping[str, str] | None = None) -> Isolation:
    return Isolation(folder, UID, (("127.0.0.1", 3128),), files or {}, {"RLIMIT_NOFILE": 64}, {"PATH": "/usr/bin:/bin"})


async def test_a_program_has_a_user_a_folder_and_a_file_of_its_own(folder: Path) -> None:
    script = "id -u; pwd; echo made >made; cat memory/secret; stat -c '%a %u' memory/secret; ulimit -n; env; exit 3"
    status, out = await said(isolation(folder, {"secret": "words\n"}), script)
    assert out.splitlines() == [str(UID), "/tmp", "words", f"600 {UID}", "64", "PATH=/usr/bin:/bin", "PWD=/tmp"]
    assert status == 3
    assert {each.name for each in folder.iterdir()} == {"made", "memory"}
    assert list((folder / "memory").iterdir()) == [], "the file was in memory only"


async def test_a_program_sees_no_process_and_no_network(folder: Path) -> None:
    """But what it reaches through the listener."""
    outside = socket.create_server(("127.0.0.1", 0))
    with outside:
        port = outside.getsockname()[1]
        program = f"""
import os, socket
print(os.listdir("/proc"), os.getpid())
for address in (("127.0.0.1", {port}), ("192.0.2.1", 80)):
    try: socket.create_connection(address, 3); print("reached")
    except OSError as error: print(type(error).__name__)
with socket.create_connection(("127.0.0.1", 3128)) as sock: print(sock.recv(9).decode())
"""
        async with isolated([PYTHON, "-I", "-c", program], isolation(folder)) as running:
            (listener,) = running.listeners
            with anyio.fail_after(30):
                await anyio.wait_readable(listener)
            client, _ = listener.accept()
            client.sendall(b"hello")
            client.close()
            assert running.process.stdout is not None
            out = b"".join([chunk async for chunk in running.process.stdout]).decode()
    assert out.splitlines() == ["[] 1", "ConnectionRefusedError", "OSError", "hello"]


async def test_a_program_cannot_gain_privileges(folder: Path) -> None:
    program = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print(libc.prctl(39, 0, 0, 0, 0), [libc.prctl(23, each, 0, 0, 0) for each in range(41)].count(0))
print(libc.unshare(0x40000000), os.getgroups())
"""
    async with isolated([PYTHON, "-I", "-c", program], isolation(folder)) as running:
        assert running.process.stdout is not None
        out = b"".join([chunk async for chunk in running.process.stdout]).decode()
    assert out.splitlines() == ["1 41", "-1 []"], "no_new_privs is set, and no capability is in the bounding set"


async def test_what_cannot_be_isolated_is_an_error(folder: Path) -> None:
    with pytest.raises(CommandError, match="cannot be isolated") as failed:
        async with isolated(["/bin/true"], isolation(folder / "missing" / "more")):
            pass
    assert "doctor" in (failed.value.hint or "")


@pytest.mark.parametrize("attempt", range(10))
async def test_the_end_of_the_block_ends_the_program(folder: Path, attempt: int) -> None:
    """Also when the block ends in the first moment of the program's life."""
    async with isolated(["/bin/sleep", "1000"], isolation(folder)) as running:
        child = first_child(running.process.pid)
    assert not Path(f"/proc/{child}").exists()


def test_a_program_dies_with_a_killed_parent(folder: Path) -> None:
    program = f"""
import anyio
from pathlib import Path
from pandastack.host.processes.isolated import Isolation, isolated

async def main():
    async with isolated(["/bin/sleep", "1000"], Isolation(Path({str(folder)!r}), {UID})) as running:
        print(running.process.pid, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        launcher = int(parent.stdout.readline())
        eventually(lambda: len(children(launcher)) == 1, 20, "the program has begun")
        (child,) = children(launcher)
        os.kill(parent.pid, signal.SIGKILL)
    eventually(lambda: not alive(child) and not alive(launcher), 20, "both are gone")


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def first_child(pid: int) -> int:
    """The child of a process, found without a rest: in its first moment."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if found := children(pid):
            return found[0]
    raise AssertionError("the program has not begun")


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
