"""Machines, seen through the engine itself and from the host."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from pandastack import Sandbox
from pandastack.engine.engine import Engine, open_engine
from pandastack.engine.machines import sandbox as engine_sandbox
from pandastack.engine.settings import Settings
from pandastack.engine.spec import SandboxSpec
from pandastack.guest import ExecRequest
from tests.support.installation import Installation, Server, eventually, machine_processes


def killed_at(*points: str, later: Sequence[str] = ()) -> pytest.MarkDecorator:
    """The test for each point at which a server is killed; those of ``later`` only where time does not matter."""
    return pytest.mark.parametrize("point", [*points, *map(slow, later)])


def slow(*values: object) -> object:
    """Parameters of a test that only `make accept` runs."""
    return pytest.param(*values, marks=pytest.mark.slow)


@asynccontextmanager
async def opened(place: Installation) -> AsyncIterator[Engine]:
    """An engine in this process, which makes no machines ahead: every machine is somebody's."""
    async with open_engine(place.layout, Settings(ready_machines=0)) as engine:
        yield engine


def spec() -> SandboxSpec:
    """What a new sandbox is asked for with."""
    name = str(uuid.uuid4())
    return SandboxSpec(name, name[:8])


async def run(sandbox: engine_sandbox.Sandbox, cmd: str) -> str:
    """What a command prints, stripped. It must succeed within a minute."""
    text = b""
    async with sandbox.channel.exec(ExecRequest(cmd=cmd, timeout_s=60)) as process:
        async for _, chunk in process.output():
            text += chunk
    assert process.result.exit_code == 0, text
    return text.decode().strip()


def pid_of(http: httpx.Client, sandbox: Sandbox) -> int:
    """The process of a sandbox's machine."""
    return int(http.get(f"/sandboxes/{sandbox.id}/metrics").json()["pid"])


def directories_of(server: Server, pid: int) -> tuple[Path, Path]:
    """A machine's directory and that of its sockets."""
    layout = server.installation.layout
    name = machine_processes()[pid].rpartition("-")[2]
    return layout.engine / "pool" / "machines" / name, layout.sockets / name


def kill_machines(place: Installation) -> None:
    """What a reboot does to them."""
    for pid in place.machines():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not place.machines(), 60, "every machine is gone")


LOOK = "nproc; awk '/MemTotal/ {print $2}' /proc/meminfo; df --output=size -BM / | tail -1 | tr -d M"


def size_in(sandbox: Sandbox) -> tuple[int, float, float]:
    """CPUs, GiB of memory, GiB of disk, as programs see them."""
    cpus, memory_kb, disk_mb = map(int, sandbox.exec(LOOK, check=True).stdout.split())
    return cpus, memory_kb / 2**20, disk_mb / 2**10
