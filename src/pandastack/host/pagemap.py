"""Another process's private file mapping: find its modified pages, read them, and write pages into it.

Sources: Documentation/admin-guide/mm/pagemap.rst and include/uapi/linux/fs.h of Linux (``PAGEMAP_SCAN``, since 6.7),
and proc(5) for ``maps``, ``pagemap`` and ``mem``. A page that was written to is present or swapped, and no longer the
file's.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pandastack.errors import ServerError

PAGE = mmap.PAGESIZE
_ENTRY = 8
_PRESENT, _SWAPPED, _FILE = 0x80, 0x40, 0x20  # bits 63, 62 and 61 of an entry, in its highest byte
_OWN = bytes(int(bool(flags & (_PRESENT | _SWAPPED)) and not flags & _FILE) for flags in range(256))
_RUN = re.compile(b"\x01+")

_PAGEMAP_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg)
_SCAN_ARG = struct.Struct("12Q")
_REGION = struct.Struct("3Q")
_REGIONS = 4096
_SCAN_FILE, _SCAN_PRESENT, _SCAN_SWAPPED = 1 << 2, 1 << 3, 1 << 4

CHUNK = 1024 * 1024
"""How many bytes are read from another process's memory at once."""


@dataclass(frozen=True)
class Mapping:
    """A stretch of a process's address space: ``[start, end)``, backed by a file from byte ``offset`` on."""

    start: int
    end: int
    offset: int


@dataclass(frozen=True)
class Extent:
    """``length`` bytes at ``address`` in the process, which belong at ``offset`` of the file."""

    address: int
    offset: int
    length: int


def mappings_of(maps: str, device: int, inode: int) -> list[Mapping]:
    """The lines of a ``/proc/PID/maps`` that map the file ``device``, ``inode`` (as in ``os.stat``)."""
    wanted = f"{os.major(device):02x}:{os.minor(device):02x} {inode} "
    found = []
    for line in maps.splitlines():
        span, _, offset, rest = line.split(" ", 3)
        if f"{rest} ".startswith(wanted):
            start, _, end = span.partition("-")
            found.append(Mapping(int(start, 16), int(end, 16), int(offset, 16)))
    return found


def mapped(pid: int, file: Path) -> list[Mapping]:
    """Where the process ``pid`` has ``file`` in its memory.

    Raises :class:`ServerError` when no mapping is found. Of a file on an overlay, Linux 6.1 names the one below it; to
    take that for "nothing was written" would lose what the process has written.
    """
    status = file.stat()
    found = mappings_of(Path(f"/proc/{pid}/maps").read_text(), status.st_dev, status.st_ino)
    if not found:
        hint = "the data directory must not be on an overlay file system, as in a container without a volume"
        raise ServerError(f"{file.name}: process {pid} has no mapping of it", hint=hint)
    return found


def own_pages(pid: int, file: Path) -> list[Extent]:
    """What the process ``pid`` has written to its private mapping of ``file``, in the order of addresses.

    O(pages it has), not O(size of the mapping), where the kernel can scan; else one pass over eight bytes a page.
    Raises as :func:`mapped`.
    """
    fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return [
            Extent(start, mapping.offset + start - mapping.start, end - start)
            for mapping in mapped(pid, file)
            for start, end in merged(_scan(fd, mapping))
        ]
    finally:
        os.close(fd)


def _scan(fd: int, mapping: Mapping) -> Iterator[tuple[int, int]]:
    try:
        yield from scanned(fd, mapping)
    except OSError:  # a kernel before 6.7 refuses the first call, so nothing was yielded yet
        yield from read_entries(fd, mapping)


def scanned(fd: int, mapping: Mapping) -> Iterator[tuple[int, int]]:
    """The process's own pages by ``PAGEMAP_SCAN``: pairs of addresses. OSError when the kernel has no such call."""
    regions = (ctypes.c_uint64 * (_REGIONS * 3))()
    start, count = mapping.start, _REGIONS
    # Not `walk_end`: the kernel leaves it at an earlier place when it had to empty its own buffer in between.
    while count == _REGIONS and start < mapping.end:
        argument = _SCAN_ARG.pack(
            *(_SCAN_ARG.size, 0, start, mapping.end, 0, ctypes.addressof(regions), _REGIONS, 0),
            *(_SCAN_FILE, _SCAN_FILE, _SCAN_PRESENT | _SCAN_SWAPPED, _SCAN_PRESENT),
        )
        count = fcntl.ioctl(fd, _PAGEMAP_SCAN, bytearray(argument))
        for begin, end, _ in _REGION.iter_unpack(bytes(regions)[: count * _REGION.size]):
            yield begin, end
            start = end


def read_entries(fd: int, mapping: Mapping) -> Iterator[tuple[int, int]]:
    """The process's own pages by reading ``pagemap``, with no loop over pages: pairs of addresses."""
    step = CHUNK // _ENTRY * PAGE
    for base in range(mapping.start, mapping.end, step):
        pages = (min(base + step, mapping.end) - base) // PAGE
        entries = os.pread(fd, pages * _ENTRY, base // PAGE * _ENTRY)
        for run in _RUN.finditer(entries[_ENTRY - 1 :: _ENTRY].translate(_OWN)):
            yield base + run.start() * PAGE, base + run.end() * PAGE


def merged(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ordered ranges, with adjacent ones merged."""
    current: tuple[int, int] | None = None
    for start, end in ranges:
        if current is not None and start == current[1]:
            current = (current[0], end)
            continue
        if current is not None:
            yield current
        current = (start, end)
    if current is not None:
        yield current


def read_pages(pid: int, extents: Iterable[Extent]) -> Iterator[tuple[int, bytes]]:
    """Pairs of file offset and content. Reading swaps in pages that were swapped out."""
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for extent in extents:
            for done in range(0, extent.length, CHUNK):
                size = min(CHUNK, extent.length - done)
                data = os.pread(fd, size, extent.address + done)
                if len(data) != size:
                    raise OSError(f"the memory of process {pid} could be read to {len(data)} of {size} bytes only")
                yield extent.offset + done, data
    finally:
        os.close(fd)


def write_pages(pid: int, file: Path, pages: Iterable[tuple[int, bytes]]) -> None:
    """Put bytes into the process's private mapping of ``file``, as if it had written them itself.

    ``pages`` are pairs of file offset and content. Raises ``OSError`` for an offset that is not mapped, and as
    :func:`mapped`.
    """
    mappings = mapped(pid, file)
    fd = os.open(f"/proc/{pid}/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        for offset, data in pages:
            _write_run(fd, mappings, offset, memoryview(data))
    finally:
        os.close(fd)


def _write_run(fd: int, mappings: Sequence[Mapping], offset: int, data: memoryview) -> None:
    while data:
        home = next((each for each in mappings if each.offset <= offset < each.offset + each.end - each.start), None)
        if home is None:
            raise OSError(f"byte {offset} of the memory is not mapped")
        address = home.start + offset - home.offset
        written = os.pwrite(fd, data[: min(CHUNK, home.end - address)], address)
        offset, data = offset + written, data[written:]
