"""Engines that are killed while sandboxes with volumes begin, sleep, wake and go back: no volume may be lost, differ
from what its sandbox remembers, or be free for others.

Of each operation the points are ordinary at which the volume changes hands, as in tests/system/test_survival.py; those
between them take a minute more and are slow.
"""

from __future__ import annotations

import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest

from pandastack.cluster import EngineClient
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import ExecResult, Output
from pandastack.contract.references import TemplateRef
from pandastack.contract.sandboxes import SandboxSpec, SandboxState
from pandastack.contract.volumes import AttachVolume
from pandastack.errors import ConflictError, PandastackError
from tests.support.engine_server import engine_process
from tests.support.installation import Installation
from tests.support.machines import killed_at

pytestmark = pytest.mark.anyio

DATA = "/mnt/data"
BASE = TemplateRef("base")


@asynccontextmanager
async def last(place: Installation) -> AsyncIterator[EngineClient]:
    """An engine in a process of its own, which stops in order."""
    async with engine_process(place) as (_, client):
        yield client


@asynccontextmanager
async def killed(place: Installation, point: str = "") -> AsyncIterator[EngineClient]:
    """An engine in a process of its own that is killed: at ``point``, else at the end of the block."""
    settings = {"PANDASTACK_CRASH_AT": point} if point else {}
    async with engine_process(replace(place, settings=settings)) as (process, client):
        yield client
        if not point:
            process.kill()
        with anyio.fail_after(30):
            assert await process.wait() == -signal.SIGKILL, f"it was not killed at {point}"


async def dying(operation: Callable[[], Awaitable[object]]) -> None:
    """An operation in which the engine is killed."""
    with pytest.raises(PandastackError):
        await operation()


async def run(client: EngineClient, sandbox: str, cmd: str) -> str:
    text = b""
    async with client.exec(sandbox, ExecSpec(cmd=cmd, timeout_seconds=60)) as records:
        async for each in records:
            if isinstance(each, Output):
                text += each.data
            elif isinstance(each, ExecResult):
                assert each.exit_code == 0, text
    return text.decode().strip()


async def written(client: EngineClient) -> tuple[str, str]:
    """A sandbox that has written to a volume, and the volume."""
    volume, sandbox = str(uuid.uuid4()), str(uuid.uuid4())
    await client.volumes.create(volume, 64)
    await client.create(SandboxSpec(sandbox), BASE, volumes=[AttachVolume(volume, DATA)])
    await run(client, sandbox, f"echo one > {DATA}/file; sync; exec 9> /run/open")
    return sandbox, volume


async def check(client: EngineClient, place: Installation, sandbox: str, volume: str, expected: str) -> None:
    """The sandbox still has its volume, runs or wakes with it, and what it writes is in the volume."""
    assert (await client.volumes.get(volume)).writer == sandbox
    with pytest.raises(ConflictError):
        await client.volumes.delete(volume)
    if (await client.sandbox(sandbox)).state is SandboxState.HIBERNATED:
        await client.wake(sandbox)
    pool = place.layout.engine / "pool"
    disks = [each for each in pool.glob("machines/*/disk-volume0.img") if each.samefile(pool / f"volumes/{volume}.img")]
    assert len(disks) == 1
    assert await run(client, sandbox, f"cat {DATA}/file; echo after >> {DATA}/file") == expected
    await client.delete(sandbox)
    await unheld(client, volume, f"{expected}\nafter")


async def unheld(client: EngineClient, volume: str, expected: str) -> None:
    """Nobody has the volume, and it has this in its file; then it is deleted."""
    assert (await client.volumes.get(volume)).writer is None
    reader = str(uuid.uuid4())
    await client.create(SandboxSpec(reader), BASE, volumes=[AttachVolume(volume, DATA, read_only=True)])
    assert await run(client, reader, f"cat {DATA}/file") == expected
    await client.delete(reader)
    await client.volumes.delete(volume)
    assert await client.volumes.list() == ()


@killed_at("claimed", "running", later=["planned"])
async def test_killed_while_a_sandbox_with_a_volume_begins(place: Installation, point: str) -> None:
    async with killed(place) as client:
        first, volume = await written(client)
        await client.delete(first)
    sandbox = str(uuid.uuid4())
    async with killed(place, point) as client:
        await dying(lambda: client.create(SandboxSpec(sandbox), BASE, volumes=[AttachVolume(volume, DATA)]))
    async with last(place) as client:
        if point == "running":
            await check(client, place, sandbox, volume, "one")
        else:
            assert await client.sandboxes() == ()
            await unheld(client, volume, "one")


@killed_at("captured", "ending", later=["hibernating", "asleep"])
async def test_killed_while_it_falls_asleep(place: Installation, point: str) -> None:
    async with killed(place, point) as client:
        sandbox, volume = await written(client)
        await dying(lambda: client.hibernate(sandbox))
    async with last(place) as client:
        await check(client, place, sandbox, volume, "one")


@killed_at("claimed", "awake", later=["running"])
async def test_killed_while_it_wakes(place: Installation, point: str) -> None:
    async with killed(place) as client:
        sandbox, volume = await written(client)
        await client.hibernate(sandbox)
    async with killed(place, point) as client:
        await dying(lambda: client.wake(sandbox))
    async with last(place) as client:
        await check(client, place, sandbox, volume, "one")


@killed_at("claimed", "rewound", later=["rewinding", "running"])
async def test_killed_while_it_goes_back(place: Installation, point: str) -> None:
    async with killed(place) as client:
        sandbox, volume = await written(client)
        snapshot = str(uuid.uuid4())
        await client.snapshot(sandbox, snapshot)
        await run(client, sandbox, f"echo two >> {DATA}/file; sync")
        if point == "running":  # one that runs is adopted, and comes to this point by that
            await client.hibernate(sandbox)
    async with killed(place, point) as client:
        await dying(lambda: client.rewind(sandbox, snapshot))
    async with last(place) as client:
        await client.delete_snapshot(snapshot)
        back = point in ("running", "rewound")
        await check(client, place, sandbox, volume, "one" if back else "one\ntwo")


async def test_killed_while_it_writes(place: Installation) -> None:
    """The machine runs on without an engine, and so does the guest's work on the volume."""
    async with killed(place) as client:
        sandbox, volume = await written(client)
        await run(client, sandbox, f"(sleep 1; echo alone >> {DATA}/file; sync) >/dev/null 2>&1 &")
    async with last(place) as client:
        assert await run(client, sandbox, f"sleep 1; grep -c alone {DATA}/file") == "1"
        await check(client, place, sandbox, volume, "one\nalone")
