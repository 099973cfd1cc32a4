"""Real mappings of a real child: what it wrote, and only that, is found, also when it was swapped or paged out."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pandastack.errors import ServerError
from pandastack.host import pagemap
from pandastack.host.pagemap import PAGE, Mapping, mappings_of, merged, own_pages, read_pages

PAGES = 4096

CHILD = """
import ctypes, mmap, sys
file = open(sys.argv[1], "r+b")
memory = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
for line in sys.stdin:
    word, _, rest = line.partition(" ")
    if word == "write":
        for page in map(int, rest.split()):
            memory[page * 4096 : page * 4096 + 4] = b"mine"
    elif word == "read":
        assert memory[int(rest) * 4096] is not None
    elif word == "pageout":
        memory.madvise(21)  # MADV_PAGEOUT
    print("done", flush=True)
"""


class Child:
    def __init__(self, file: Path) -> None:
        argv = [sys.executable, "-c", CHILD, str(file)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def do(self, line: str) -> None:
        assert self.process.stdin and self.process.stdout
        print(line, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "memory"
    path.write_bytes(b"file" * (PAGES * PAGE // 4))
    return path


@pytest.fixture
def child(file: Path) -> Iterator[Child]:
    child = Child(file)
    child.do("hello")
    yield child
    child.process.kill()
    child.process.communicate()


def pages_of(child: Child, file: Path) -> set[int]:
    found = own_pages(child.process.pid, file)
    return {page for each in found for page in range(each.offset // PAGE, (each.offset + each.length) // PAGE)}


def test_nothing_is_found_before_anything_is_written(child: Child, file: Path) -> None:
    child.do("read 7")
    assert pages_of(child, file) == set()


def test_a_file_that_is_not_mapped_is_an_error(child: Child, tmp_path: Path) -> None:
    """No mapping is not the same as no written page: a capture without its pages restores a broken guest."""
    other = tmp_path / "other"
    other.touch()
    with pytest.raises(ServerError, match=r"^other: .*no mapping"):
        own_pages(child.process.pid, other)


def test_exactly_the_written_pages_are_found(child: Child, file: Path) -> None:
    wanted = set(random.Random(1).sample(range(PAGES), 700)) | {0, PAGES - 1}
    child.do("write " + " ".join(map(str, wanted)))
    child.do(f"read {next(page for page in range(PAGES) if page not in wanted)}")
    assert pages_of(child, file) == wanted


def test_both_ways_of_looking_agree(child: Child, file: Path) -> None:
    child.do("write " + " ".join(map(str, random.Random(2).sample(range(PAGES), 900))))
    status, maps = file.stat(), Path(f"/proc/{child.process.pid}/maps").read_text()
    (mapping,) = mappings_of(maps, status.st_dev, status.st_ino)
    fd = os.open(f"/proc/{child.process.pid}/pagemap", os.O_RDONLY)
    try:
        read = list(merged(pagemap.read_entries(fd, mapping)))
        assert len(read) > 100
        try:
            assert list(merged(pagemap.scanned(fd, mapping))) == read
        except OSError as error:
            pytest.skip(f"this kernel has no PAGEMAP_SCAN: {error}")
    finally:
        os.close(fd)


def test_pages_that_were_forced_out_are_found_and_exact(child: Child, file: Path) -> None:
    wanted = set(range(100, 900, 3))
    child.do("write " + " ".join(map(str, wanted)))
    child.do("pageout")
    assert pages_of(child, file) == wanted
    content = dict(read_pages(child.process.pid, own_pages(child.process.pid, file)))
    assert set(content) == {page * PAGE for page in wanted}
    assert {data[:8] for data in content.values()} == {b"minefile"}


def test_the_file_is_found_by_device_and_inode() -> None:
    maps = "7f00-7f01 rw-p 00000000 fe:01 12 /a\n7f10-7f12 rw-p 00001000 fe:01 123  /b\n7f20-7f30 rw-p 0 00:00 0 \n"
    assert mappings_of(maps, os.makedev(0xFE, 1), 123) == [Mapping(0x7F10, 0x7F12, 0x1000)]


def test_ranges_that_touch_become_one() -> None:
    assert list(merged([(0, 1), (1, 3), (4, 5)])) == [(0, 3), (4, 5)]
    assert list(merged([])) == []


def test_what_is_put_there_is_the_process_s_own(child: Child, file: Path) -> None:
    written = bytes(range(256)) * (3 * PAGE // 256)
    pagemap.write_pages(child.process.pid, file, [(5 * PAGE, written), ((PAGES - 1) * PAGE, b"last" * (PAGE // 4))])
    assert pages_of(child, file) == {5, 6, 7, PAGES - 1}
    found = dict(read_pages(child.process.pid, own_pages(child.process.pid, file)))
    assert found == {5 * PAGE: written, (PAGES - 1) * PAGE: b"last" * (PAGE // 4)}
    assert file.read_bytes() == b"file" * (PAGES * PAGE // 4)


@pytest.mark.parametrize(("offset", "size"), [(PAGES * PAGE, 1), (PAGES * PAGE - 1, 2)])
def test_nothing_is_put_where_the_file_is_not(child: Child, file: Path, offset: int, size: int) -> None:
    with pytest.raises(OSError, match="is not mapped"):
        pagemap.write_pages(child.process.pid, file, [(offset, b"x" * size)])
