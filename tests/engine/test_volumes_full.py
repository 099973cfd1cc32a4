"""Volumes on a storage pool that is really full."""

from __future__ import annotations

import uuid

import anyio
import pytest

from pandastack.contract.volumes import AttachVolume, CreateVolume
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.errors import StorageFullError
from tests.support.full_pools import MIB, full, small_pool
from tests.support.installation import Install, Installation, eventually
from tests.support.machines import opened, run, spec

pytestmark = [pytest.mark.anyio, pytest.mark.root]

DATA = "/mnt/data"


@pytest.fixture(scope="module")
def place(install: Install) -> Installation:
    return small_pool(install)


async def test_a_full_pool_costs_no_volume_anything(place: Installation) -> None:
    """What cannot be made is refused, what cannot be captured goes on, and a write waits until there is room."""
    async with opened(place) as engine:
        volume = (await engine.volumes.create(CreateVolume(str(uuid.uuid4()), 256))).id
        sandbox = await engine.sandboxes.create(spec(), "base", volumes=[AttachVolume(volume, DATA)])
        await run(sandbox, f"echo before > {DATA}/file; head -c 20000000 /dev/urandom > /run/blob; sync")
        copy = str(uuid.uuid4())
        with full(place, MIB):
            with pytest.raises(StorageFullError, match="for volume"):
                await engine.volumes.create(CreateVolume(copy, 64))
            with pytest.raises(StorageFullError, match="for volume"):
                await engine.volumes.grow(volume, 512)
            with pytest.raises(StorageFullError):
                await engine.lifecycle.hibernate(sandbox.id)
            assert engine.volumes.get(volume).writer == sandbox.id and engine.asleep.names() == []
            assert await run(sandbox, f"cat {DATA}/file") == "before"
            much = f"head -c 60000000 /dev/urandom > {DATA}/much; sync; sha256sum < {DATA}/much > {DATA}/sum"
            await run(sandbox, f"({much}) >/dev/null 2>&1 &")
            await anyio.to_thread.run_sync(eventually, lambda: sandbox.machine.stalled, 60, "the machine stalls")
        wait = f"until [ -s {DATA}/sum ]; do sleep 0.2; done; sync; cat {DATA}/sum"
        with anyio.fail_after(60):
            digest = await run(sandbox, wait)
        assert [each.id for each in engine.volumes.list()] == [volume]
        await engine.lifecycle.hibernate(sandbox.id)
        woken = await engine.lifecycle.wake(sandbox.id)
        assert await run(woken, f"sha256sum < {DATA}/much; cat {DATA}/file") == f"{digest}\nbefore"
        await engine.sandboxes.delete(woken.id)
        other = await engine.sandboxes.create(spec(), "base", volumes=[AttachVolume(volume, DATA)])
        assert isinstance(other, Sandbox)
        assert await run(other, f"sha256sum < {DATA}/much") == digest
        await engine.sandboxes.delete(other.id)
        await engine.volumes.delete(volume)
