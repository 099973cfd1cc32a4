"""Volumes as the agent mounts and grows them, on loop devices of this host."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pandastack.errors import BadRequestError, ConflictError, NotFoundError
from pandastack.guest import Channel
from pandastack.host.processes.run import run
from tests.support.guests import agent_on

pytestmark = [pytest.mark.anyio, pytest.mark.root]

MIB = 1024 * 1024


@dataclass
class Disk:
    """The disk in the first place, and an agent whose machine has it."""

    image: Path
    device: str
    channel: Channel
    top: Path
    """Where volumes are mounted in the test."""


@pytest.fixture
async def disk(tmp_path: Path, agent_binary: Path) -> AsyncIterator[Disk]:
    image, top = tmp_path / "image", tmp_path / "top"
    with image.open("wb") as file:
        file.truncate(32 * MIB)
    await run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", image])
    attached = await run(["losetup", "--find", "--show", image], check=False)
    if attached.returncode:
        pytest.skip(f"this host gives no loop device: {attached.stderr.decode().strip()}")
    device = attached.text.strip()
    (tmp_path / "vdb").symlink_to(device)
    top.mkdir()
    try:
        async with agent_on(agent_binary, "--disks", str(tmp_path / "vd")) as channel:
            yield Disk(image, device, channel, top)
    finally:
        for each in top.rglob("*"):
            if os.path.ismount(each):
                await run(["umount", each])
        await run(["losetup", "--detach", device])


async def mounted(disk: Disk, size: int, path: Path) -> None:
    """A volume at ``path``. A host may keep the right to grow file systems to itself: the machines' tests need none."""
    try:
        await disk.channel.mount_volume(0, size, str(path))
    except BadRequestError as error:
        if error.detail.get("errno") != errno.EPERM:
            raise
        pytest.skip("this user may not grow a file system")


def size_of(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize


async def enlarge(disk: Disk, size: int) -> None:
    os.truncate(disk.image, size)
    await run(["losetup", "--set-capacity", disk.device])


async def test_a_volume_is_mounted_where_nothing_was(disk: Disk) -> None:
    path = disk.top / "deep/er"
    await mounted(disk, 32 * MIB, path)
    assert os.path.ismount(path)
    (path / "file").write_text("written")
    options = (await run(["findmnt", "-no", "OPTIONS", path])).text
    assert "noatime" in options and "noinit_itable" in options


async def test_a_volume_grows_when_it_is_mounted_and_afterwards(disk: Disk) -> None:
    path = disk.top / "data"
    await enlarge(disk, 64 * MIB)
    await mounted(disk, 64 * MIB, path)
    first = size_of(path)
    assert first > 40 * MIB
    await enlarge(disk, 2048 * MIB)
    await disk.channel.grow_volume(0, 2048 * MIB)
    assert size_of(path) > 1900 * MIB
    assert disk.image.stat().st_blocks * 512 < 24 * MIB, "growing has written to the holes"
    await run(["umount", path])
    checked = await run(["e2fsck", "-fn", disk.image], check=False)
    assert checked.returncode == 0, checked.text


async def test_nothing_is_written_through_a_read_only_mount(disk: Disk) -> None:
    path = disk.top / "data"
    await enlarge(disk, 64 * MIB)
    await disk.channel.mount_volume(0, 64 * MIB, str(path), read_only=True)
    with pytest.raises(OSError, match="Read-only"):
        (path / "file").write_text("x")
    assert size_of(path) < 32 * MIB


async def test_a_path_that_cannot_be_a_directory(disk: Disk) -> None:
    (disk.top / "file").write_text("x")
    for path in ("file", "file/below"):
        with pytest.raises(BadRequestError, match="cannot be a directory"):
            await disk.channel.mount_volume(0, 32 * MIB, str(disk.top / path))
    assert not any(map(os.path.ismount, disk.top.rglob("*")))


async def test_a_disk_that_does_not_hold_a_file_system(disk: Disk) -> None:
    with disk.image.open("r+b") as file:
        file.write(bytes(64 * 1024))
    await run(["blockdev", "--flushbufs", disk.device])
    with pytest.raises(ConflictError, match="no file system"):
        await disk.channel.mount_volume(0, 32 * MIB, str(disk.top / "data"))
    assert not os.path.ismount(disk.top / "data")


async def test_a_place_that_is_not_there(disk: Disk) -> None:
    with pytest.raises(NotFoundError):
        await disk.channel.mount_volume(1, 32 * MIB, str(disk.top / "data"))
    for place in (14, 200):
        with pytest.raises(ConflictError):
            await disk.channel.mount_volume(place, 32 * MIB, str(disk.top / "data"))
