"""Overlays: qcow2 files with only those parts of a disk that differ from a base, which is a raw file beside them.

The format is QEMU's (docs/interop/qcow2.txt), with subclusters of the guest's block size, so that a write of one block
neither reads nor copies its surroundings. The header never names a base: the command line does. Machines write these
files, so whatever is read from one is checked: a header that says anything but what :func:`make_overlay` wrote is
refused before a VMM loads a guest on it, since a header could name other files to open.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from pandastack.errors import ServerError
from pandastack.host import files

CLUSTER = 128 * 1024
BLOCK = 4096
"""The bytes of a subcluster, 32 to a cluster."""

SIZE_MAXIMUM = 1024**4
"""Bytes of the largest disk."""

_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_MAGIC, _VERSION, _CLUSTER_BITS, _REFCOUNT_ORDER = b"QFI\xfb", 3, 17, 4
_EXTENDED_L2 = 1 << 4
_END_OF_EXTENSIONS = bytes(8)
_REFCOUNT_TABLE, _REFCOUNTS, _L1, _CLUSTERS = (CLUSTER * place for place in (1, 2, 3, 4))
_TABLE = CLUSTER // 16
"""Entries of an L2 table, each with 16 bytes for one cluster."""

_COVERED = _TABLE * CLUSTER
"""Bytes of the disk that one L2 table describes."""

_REFCOUNTS_PER_BLOCK = CLUSTER // 2
_REFCOUNT_TABLE_MAXIMUM = 64
"""Clusters of the table of refcounts: with one, the file may have 128 TiB."""

_OFFSETS = 0x00FFFFFFFFFFFE00
_COMPRESSED = 1 << 62
_ALL = (1 << 32) - 1


def make_overlay(path: Path, size: int) -> None:
    """Write an overlay for a disk of ``size`` bytes that differs in nothing from its base: 16 KiB on the disk."""
    header = _header(size, l1_size=_l1_size(size))
    own = b"\0\1" * (_CLUSTERS // CLUSTER)
    try:
        with path.open("wb") as file:
            file.truncate(_CLUSTERS)
            for offset, data in ((0, header), (_REFCOUNT_TABLE, _REFCOUNTS.to_bytes(8)), (_REFCOUNTS, own)):
                os.pwrite(file.fileno(), data, offset)
    except OSError as error:
        raise files.map_error(error, path) from error


def _l1_size(size: int) -> int:
    return -(-size // _COVERED)


def _header(size: int, l1_size: int) -> bytes:
    return (
        _HEADER.pack(
            *(_MAGIC, _VERSION, 0, 0, _CLUSTER_BITS, size, 0, l1_size, _L1, _REFCOUNT_TABLE, 1, 0, 0),
            *(_EXTENDED_L2, 0, 0, _REFCOUNT_ORDER, _HEADER.size),
        )
        + _END_OF_EXTENSIONS
    )


def disk_size(path: Path) -> int:
    """The size of the disk in bytes. Raises :class:`ServerError` for a header unlike those of :func:`make_overlay`."""
    return _read_header(path)[0]


def check(path: Path) -> None:
    """Raise :class:`ServerError` for an overlay that was written in part, as a crash of the host may leave it.

    The file system in it is not looked at. A VMM orders its writes so that its end at any moment leaves a whole
    overlay; without the host's syncs, a crash of the host may have kept a table and lost what it leads to, and a later
    write would then take a cluster that is in use already.
    """
    size, l1 = _read_header(path)
    try:
        with path.open("rb") as file:
            counted = _Refcounts(file.fileno(), path)
            used = bytearray(-(-os.fstat(file.fileno()).st_size // CLUSTER))
            for cluster in _clusters(file.fileno(), size, l1, path):
                if used[cluster] or counted.of(cluster) != 1:
                    raise _damaged(path)
                used[cluster] = 1
    except OSError as error:
        raise files.map_error(error, path) from error


class _Refcounts:
    """The numbers of uses that an overlay records for its clusters."""

    def __init__(self, fd: int, path: Path) -> None:
        header = _HEADER.unpack(os.pread(fd, _HEADER.size, 0))
        table, clusters = header[9], header[10]
        if not 0 < clusters <= _REFCOUNT_TABLE_MAXIMUM:
            raise _damaged(path)
        data = b"".join(_exactly(fd, CLUSTER, table + index * CLUSTER, path) for index in range(clusters))
        self._blocks = [entry for (entry,) in struct.iter_unpack(">Q", data)]
        self._fd, self._path = fd, path
        self._read: dict[int, bytes] = {}

    def of(self, cluster: int) -> int:
        index, number = divmod(cluster, _REFCOUNTS_PER_BLOCK)
        block = self._blocks[index] if index < len(self._blocks) else 0
        if not block:
            return 0
        if index not in self._read:
            self._read[index] = _exactly(self._fd, CLUSTER, block, self._path)
        return int.from_bytes(self._read[index][number * 2 : number * 2 + 2], "big")


def _clusters(fd: int, size: int, l1: int, path: Path) -> Iterator[int]:
    """The number of each cluster that a table leads to, as often as one does."""
    file_size = os.fstat(fd).st_size
    for (entry,) in struct.iter_unpack(">Q", _exactly(fd, _l1_size(size) * 8, l1, path)):
        if not entry & _OFFSETS:
            continue
        table = _exactly(fd, CLUSTER, entry & _OFFSETS, path)
        yield (entry & _OFFSETS) // CLUSTER
        for descriptor, bitmap in struct.iter_unpack(">QQ", table):
            place = descriptor & _OFFSETS
            if descriptor & _COMPRESSED or place % CLUSTER or place >= file_size or (bitmap & _ALL and not place):
                raise _damaged(path)
            if place:
                yield place // CLUSTER


def _read_header(path: Path) -> tuple[int, int]:
    """The size of the disk, and where its L1 table is: what a resize changes. Nothing else may have changed."""
    try:
        with path.open("rb") as file:
            data = file.read(_HEADER.size + len(_END_OF_EXTENSIONS))
        fields = list(_HEADER.unpack(data[: _HEADER.size]))
    except OSError as error:
        raise files.map_error(error, path) from error
    except struct.error:
        raise _damaged(path) from None
    size, l1_size, l1 = fields[5], fields[7], fields[8]
    wanted = list(_HEADER.unpack(_header(size, l1_size)[: _HEADER.size]))
    free = (8, 9, 10, 12)  # where the tables are; QEMU moves them when they grow
    same = all(here == made or place in free for place, (here, made) in enumerate(zip(fields, wanted, strict=True)))
    if not same or data[_HEADER.size :] != _END_OF_EXTENSIONS or not _plausible(size, l1_size):
        raise _damaged(path)
    return size, l1


def _plausible(size: int, l1_size: int) -> bool:
    return 0 < size <= SIZE_MAXIMUM and size % 512 == 0 and _l1_size(size) <= l1_size <= _l1_size(SIZE_MAXIMUM)


def _damaged(path: Path) -> ServerError:
    return ServerError(f"{path} is not an overlay that this host has made", public="a captured disk is damaged")


def flatten(base: Path, overlay: Path, target: Path) -> None:
    """Make the raw file ``target`` of ``base`` with what ``overlay`` has over it; what is zero becomes a hole."""
    files.clone(base, target)
    merge(overlay, target)


def merge(overlay: Path, target: Path) -> None:
    """Write what ``overlay`` has over its base into ``target``, a raw copy of that base."""
    size, l1 = _read_header(overlay)
    try:
        with overlay.open("rb") as source, target.open("r+b") as result:
            result.truncate(size)
            for start, length, place in _runs(source.fileno(), size, l1, overlay):
                if place is None:
                    files.punch_hole(result.fileno(), start, length)
                else:
                    files.copy_bytes(source.fileno(), place, result.fileno(), start, length)
    except OSError as error:
        raise files.map_error(error, target) from error


Run = tuple[int, int, int | None]
"""Bytes of the disk from a place on, and where the overlay has them; None for zeros."""


def _runs(fd: int, size: int, l1: int, path: Path) -> Iterator[Run]:
    """What the overlay has, in order, with adjacent parts merged."""
    current: Run | None = None
    for start, length, place in _parts(fd, size, l1, path):
        length = min(length, size - start)
        if length <= 0:
            break
        if current is not None and start == current[0] + current[1] and _continues(current, place):
            current = (current[0], current[1] + length, current[2])
            continue
        if current is not None:
            yield current
        current = (start, length, place)
    if current is not None:
        yield current


def _continues(run: Run, place: int | None) -> bool:
    return (run[2] is None and place is None) or (None not in (run[2], place) and run[2] + run[1] == place)  # type: ignore[operator]


def _parts(fd: int, size: int, l1: int, path: Path) -> Iterator[Run]:
    file_size = os.fstat(fd).st_size
    for index, (entry,) in enumerate(struct.iter_unpack(">Q", _exactly(fd, _l1_size(size) * 8, l1, path))):
        if not entry & _OFFSETS:
            continue
        table = _exactly(fd, CLUSTER, entry & _OFFSETS, path)
        for number, (descriptor, bitmap) in enumerate(struct.iter_unpack(">QQ", table)):
            if not bitmap:
                continue
            place = descriptor & _OFFSETS
            if descriptor & _COMPRESSED or place % CLUSTER or place >= file_size or (bitmap & _ALL and not place):
                raise _damaged(path)
            yield from _subclusters((index * _TABLE + number) * CLUSTER, place, bitmap)


def _subclusters(start: int, place: int, bitmap: int) -> Iterator[Run]:
    allocated, zeros = bitmap & _ALL, bitmap >> 32
    if zeros == _ALL:
        yield start, CLUSTER, None
        return
    if allocated == _ALL:
        yield start, CLUSTER, place
        return
    for number in range(CLUSTER // BLOCK):
        if zeros >> number & 1:
            yield start + number * BLOCK, BLOCK, None
        elif allocated >> number & 1:
            yield start + number * BLOCK, BLOCK, place + number * BLOCK


def _exactly(fd: int, length: int, offset: int, path: Path) -> bytes:
    if offset % CLUSTER:
        raise _damaged(path)
    data = os.pread(fd, length, offset)
    if len(data) != length and offset + length > os.fstat(fd).st_size > offset:
        data = data.ljust(length, b"\0")  # the last table may end in a hole at the end of the file
    if len(data) != length:
        raise _damaged(path)
    return data
