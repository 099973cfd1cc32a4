"""Packing a root: the image below and the disk above become one read-only image, in a microVM made for that alone.

The tool machine boots Debian's own tools. It gets the image, the disk and an empty disk for the result; it mounts the
first two as one tree and runs mkfs.erofs on it. The host takes the result as bytes.
"""

from __future__ import annotations

import os
import shlex
import struct
from pathlib import Path

from pandastack.disks.ext4 import make_ext4
from pandastack.engine.build.boot import boot, run_in_guest
from pandastack.engine.build.host import BuildHost, with_disks
from pandastack.errors import BuildError
from pandastack.guest import ExecRequest
from pandastack.images import bootstrap
from pandastack.images.erofs import Image, mkfs_arguments

RESULT_MAXIMUM = 16 * 1024**3

_SUPERBLOCK = struct.Struct("<IIIBBHQQIII")
"""The first fields of struct erofs_super_block (fs/erofs/erofs_fs.h of Linux), at byte 1024."""

_MAGIC = 0xE0F5E1E2

_SCRIPT = """
set -eu
mkdir -p /run/image /run/disk /run/root
mount -t erofs -o ro /dev/vdc /run/image
mount -t ext4 -o ro,noload /dev/vdd /run/disk
mkdir -p /run/none
[ -d /run/disk/upper ] && above=/run/disk/upper || above=/run/none
mount -t overlay -o ro,lowerdir=$above:/run/image overlay /run/root
exec {mkfs}
"""


async def flatten(host: BuildHost, image: Image, disk: Path, result: Path, key: str, work: Path) -> None:
    """Write the tree of ``disk`` over ``image`` to the file ``result``. Raises :class:`BuildError`."""
    tools = await bootstrap.builder(host.cache)
    scratch = work / "tools.img"
    await make_ext4(scratch, 1024)
    with result.open("wb") as file:
        file.truncate(RESULT_MAXIMUM)
    spec = host.machine("pack", work, tools.path, scratch, cpus=1, memory_mb=1024, network=False)
    spec = with_disks(spec, readonly=(image.path, disk), writable=(result,))
    mkfs = shlex.join(mkfs_arguments("/dev/vde", "/run/root", key))
    async with boot(host.driver, spec, work) as booted:
        request = ExecRequest(cmd=_SCRIPT.format(mkfs=mkfs))
        await run_in_guest(booted.channel, request, "packing the root", host.progress)
        await booted.channel.sync()
    os.truncate(result, image_size(result))


def image_size(path: Path) -> int:
    """The size in an EROFS image's superblock, in bytes. Raises :class:`BuildError` if it is invalid or truncated."""
    with path.open("rb") as file:
        file.seek(1024)
        fields = _SUPERBLOCK.unpack(file.read(_SUPERBLOCK.size).ljust(_SUPERBLOCK.size, b"\0"))
    magic, block_bits, blocks = fields[0], fields[3], fields[9]
    size = blocks << block_bits if 9 <= block_bits <= 16 else 0
    if magic != _MAGIC or not 0 < size <= path.stat().st_size:
        raise BuildError("packing the root file system made no usable image")
    return size
