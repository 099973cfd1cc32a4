"""The storage pool on this host's own file system and, where it may be mounted, on an image with reflink."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from pandastack.disks import pool as pools
from pandastack.disks.pool import Pool, open_pool
from pandastack.host import facts, files, mount
from pandastack.host.processes.run import run
from pandastack.images.ext4 import make_ext4
from tests.support.installation import loop_devices

pytestmark = pytest.mark.anyio

MIB = 1024**2

USE = """
import sys, anyio
from pathlib import Path
from pandastack.disks.pool import open_pool
async def main():
    async with open_pool(Path(sys.argv[1])) as pool:
        (pool.machines / "theirs").write_bytes(b"x")
        print("open", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)
anyio.run(main)
"""


@pytest.fixture
def mountable(tmp_path: Path) -> None:
    if facts.program("mkfs.xfs") is None:
        pytest.skip("this host has no mkfs.xfs")
    if subprocess.run(["losetup", "-f"], capture_output=True).returncode != 0:
        pytest.skip("this host gives no loop devices")
    if files.can_clone(tmp_path):
        pytest.skip("this file system shares blocks itself, so no image is made")


@pytest.fixture
def without_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on which no image may be made, as for a user who is not root."""

    async def refuse(image: Path) -> bool:
        return False

    monkeypatch.setattr(pools, "_make_image", refuse)


async def _use(pool: Pool) -> None:
    source = pool.snapshots / "disk"
    await make_ext4(source, 64)
    clone = pool.machines / "disk.img"
    assert files.clone(source, clone) == pool.reflink
    assert clone.read_bytes() == source.read_bytes()
    assert files.allocated_bytes(clone) < 8 * MIB
    assert pool.free_bytes() > 0


@pytest.mark.usefixtures("mountable")
async def test_an_image_is_mounted_and_unmounted(tmp_path: Path) -> None:
    for _ in range(2):
        async with open_pool(tmp_path) as pool:
            assert pool.reflink
            assert mount.is_mounted(pool.directory)
            await _use(pool)
            (pool.snapshots / "kept").touch()
        assert not mount.is_mounted(tmp_path / "pool")
        assert loop_devices(tmp_path) == []
    assert files.allocated_bytes(tmp_path / "pool.img") < 200 * MIB


@pytest.mark.usefixtures("mountable")
async def test_the_last_process_unmounts(tmp_path: Path) -> None:
    async with await anyio.open_process([sys.executable, "-c", USE, str(tmp_path)]) as other:
        assert other.stdin and other.stdout
        async with open_pool(tmp_path) as pool:
            assert (await other.stdout.receive()).startswith(b"open")
            assert (pool.machines / "theirs").exists()
        assert mount.is_mounted(tmp_path / "pool")
        await other.stdin.aclose()
        assert await other.wait() == 0
    assert not mount.is_mounted(tmp_path / "pool")


@pytest.mark.usefixtures("mountable")
async def test_a_mount_that_a_killed_process_left_is_used_and_undone(tmp_path: Path) -> None:
    async with await anyio.open_process([sys.executable, "-c", USE, str(tmp_path)]) as other:
        assert other.stdout and (await other.stdout.receive()).startswith(b"open")
        other.kill()
    assert mount.is_mounted(tmp_path / "pool")
    async with open_pool(tmp_path) as pool:
        assert (pool.machines / "theirs").exists()
    assert not mount.is_mounted(tmp_path / "pool")


@pytest.mark.usefixtures("without_image")
async def test_without_an_image_it_is_a_directory(tmp_path: Path) -> None:
    async with open_pool(tmp_path) as pool:
        assert pool.reflink == files.can_clone(tmp_path)
        await _use(pool)
    assert not (tmp_path / "pool.img").exists()


async def test_an_image_that_cannot_be_mounted_is_dropped_while_it_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def make(image: Path) -> bool:
        image.write_bytes(b"no file system")
        return True

    monkeypatch.setattr(pools, "_make_image", make)
    monkeypatch.setattr(files, "can_clone", _never)
    async with open_pool(tmp_path) as pool:
        assert not pool.reflink
    assert not (tmp_path / "pool.img").exists()


async def test_an_image_with_something_in_it_is_never_dropped(tmp_path: Path) -> None:
    (tmp_path / "pool.img").write_bytes(os.urandom(65 * MIB))
    with pytest.raises(Exception, match="mount"):
        async with open_pool(tmp_path):
            raise AssertionError("it cannot be mounted")
    assert (tmp_path / "pool.img").exists()


def _never(directory: Path) -> bool:
    return False


async def test_an_ext4_costs_little_and_is_sound(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    await make_ext4(disk, 10240)
    assert disk.stat().st_size == 10240 * MIB
    assert files.allocated_bytes(disk) < 8 * MIB
    await run([facts.program("e2fsck") or "e2fsck", "-fn", disk])
    described = await run([facts.program("dumpe2fs") or "dumpe2fs", "-h", disk])
    assert "has_journal" not in described.text
