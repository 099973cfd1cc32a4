"""Where the bytes of files lie on the disk, so that bytes shared by several files can be counted once.

Source: Documentation/filesystems/fiemap.rst and include/uapi/linux/fiemap.h of Linux.
"""

from __future__ import annotations

import errno
import fcntl
import heapq
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

Extent = tuple[int, int]
"""A range of bytes on the device, ``[start, end)``."""

_FIEMAP = 0xC020660B  # _IOWR('f', 11, struct fiemap)
_HEAD = struct.Struct("=QQLLLL")  # start, length, flags, mapped, count, reserved
_EXTENT = struct.Struct("=QQQQQLLLL")  # logical, physical, length, two reserved, flags, three reserved
_COUNT = 1024
_SYNC, _LAST, _NOWHERE = 0x1, 0x1, 0x2 | 0x4 | 0x200  # the last: unknown, not yet allocated, inline


def extents_of(path: Path) -> list[Extent]:
    """The extents of a file; where the file system does not report them, a single unshared one of the right size."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return list(_mapped(fd))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EBADR):
            raise
        return [_apart(os.fstat(fd), 0, os.fstat(fd).st_blocks * 512)]
    finally:
        os.close(fd)


def _mapped(fd: int) -> Iterator[Extent]:
    start = 0
    while True:
        buffer = bytearray(_HEAD.pack(start, 2**64 - 1 - start, _SYNC, 0, _COUNT, 0)) + bytes(_COUNT * _EXTENT.size)
        fcntl.ioctl(fd, _FIEMAP, buffer)
        mapped = _HEAD.unpack_from(buffer)[3]
        flags = _LAST
        for logical, physical, length, _, _, flags, *_ in _EXTENT.iter_unpack(
            buffer[_HEAD.size : _HEAD.size + mapped * _EXTENT.size]
        ):
            yield _apart(os.fstat(fd), logical, length) if flags & _NOWHERE else (physical, physical + length)
            start = logical + length
        if not mapped or flags & _LAST:
            return


def _apart(status: os.stat_result, logical: int, length: int) -> Extent:
    """An address range beyond every device, unique to this file."""
    start = (1 << 64) * (status.st_ino + 1) + logical
    return start, start + length


def freed(groups: Sequence[Iterable[Extent]], kept: Iterable[Extent]) -> list[int]:
    """How many bytes become free as each of ``groups`` is deleted in turn, while ``kept`` stays. Pure.

    Bytes that several groups share are freed with the last of them; bytes shared with ``kept``, never.
    """
    stays = len(groups)
    found = [(*each, stays) for each in kept]
    found += [(*each, index) for index, group in enumerate(groups) for each in group]
    found.sort(reverse=True)
    result = [0] * (stays + 1)
    current: list[tuple[int, int]] = []  # owners here, the last to be deleted first, and their ends
    place = 0
    while found or current:
        if not current:
            place = found[-1][0]
        while found and found[-1][0] <= place:
            _, end, owner = found.pop()
            heapq.heappush(current, (-owner, end))
        while current and current[0][1] <= place:
            heapq.heappop(current)
        if current:
            owner, end = current[0]
            reached = min(end, found[-1][0]) if found else end
            result[-owner] += reached - place
            place = reached
    return result[:stays]
