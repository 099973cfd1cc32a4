"""Bytes that files share are counted once, whatever they lie on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.disks.pool import open_pool
from pandastack.host import files
from pandastack.host.extents import extents_of, freed

EXTENTS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)).map(lambda each: (each[0], sum(each))), max_size=6)


@given(st.lists(EXTENTS, max_size=5), EXTENTS)
def test_every_byte_is_freed_with_the_last_that_has_it(
    groups: list[list[tuple[int, int]]], kept: list[tuple[int, int]]
) -> None:
    owner = {}
    for index, group in enumerate([*groups, kept]):
        owner |= {byte: index for start, end in group for byte in range(start, end)}
    expected = [sum(each == index for each in owner.values()) for index in range(len(groups))]
    assert freed(groups, kept) == expected


def test_a_file_is_where_its_bytes_are(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        for offset in range(0, 64 * 2**20, 2**20):  # with holes, so that there are many extents
            os.pwrite(file.fileno(), os.urandom(8192), offset)
    found = extents_of(path)
    assert sum(end - start for start, end in found) == 64 * 8192
    assert freed([found], []) == [64 * 8192]


@pytest.mark.anyio
async def test_what_a_clone_shares_is_not_freed_with_it(tmp_path: Path) -> None:
    async with open_pool(tmp_path) as pool:
        one, other = pool.directory / "one", pool.directory / "other"
        one.write_bytes(os.urandom(2**20))
        if not files.clone(one, other):
            pytest.skip("this host has no file system that can share blocks, and cannot mount one")
        with other.open("r+b") as file:
            file.write(os.urandom(65536))
            file.flush()
            os.fsync(file.fileno())
        assert freed([extents_of(other)], extents_of(one)) == [65536]
        assert freed([extents_of(other), extents_of(one)], []) == [65536, 2**20]


def test_files_that_say_nothing_share_nothing() -> None:
    directory = Path("/dev/shm")
    if not directory.is_dir():
        pytest.skip("this host has no /dev/shm")
    paths = [directory / f"pandastack-test-{os.getpid()}-{name}" for name in "ab"]
    try:
        for path in paths:
            path.write_bytes(bytes(8192))
        assert freed([extents_of(path) for path in paths], []) == [8192, 8192]
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
