"""Overlays: what is read from a file that machines write."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.disks.overlay import BLOCK, CLUSTER, check, disk_size, flatten, make_overlay
from pandastack.errors import PandastackError, ServerError, StorageFullError
from pandastack.host.files import allocated_bytes

GIB = 2**30
HEADER = 112
COPIED = 1 << 63


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    make_overlay(tmp_path / "overlay", 3 * GIB)
    return tmp_path / "overlay"


def put(path: Path, offset: int, form: str, *values: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(form, *values))


def first_table(overlay: Path) -> int:
    """Where the table of the disk's first gibibyte is; 0 if there is none."""
    with overlay.open("rb") as file:
        return int.from_bytes(os.pread(file.fileno(), 8, 3 * CLUSTER)) & ~COPIED


def fill(overlay: Path, cluster: int, content: dict[int, bytes], zeros: tuple[int, ...] = ()) -> None:
    """Give the overlay one cluster of a disk of up to a gibibyte, as a VMM would: data at the end of the file."""
    end = -(-overlay.stat().st_size // CLUSTER) * CLUSTER
    if not (table := first_table(overlay)):
        table, end = end, end + CLUSTER
        put(overlay, 3 * CLUSTER, ">Q", table | COPIED)
    bitmap = sum(1 << number for number in content) | sum(1 << number + 32 for number in zeros)
    with overlay.open("r+b") as file:
        file.truncate(end + CLUSTER)
        for number, data in content.items():
            os.pwrite(file.fileno(), data, end + number * BLOCK)
    put(overlay, table + cluster * 16, ">QQ", end | COPIED, bitmap)


def test_a_new_one_is_small_and_differs_in_nothing(tmp_path: Path) -> None:
    base, overlay = tmp_path / "base", tmp_path / "overlay"
    base.write_bytes(os.urandom(CLUSTER * 3))
    make_overlay(overlay, 10 * GIB)
    assert allocated_bytes(overlay) <= 4 * 4096 and disk_size(overlay) == 10 * GIB
    flatten(base, overlay, tmp_path / "flat")
    assert (tmp_path / "flat").stat().st_size == 10 * GIB
    assert allocated_bytes(tmp_path / "flat") == allocated_bytes(base)
    with (tmp_path / "flat").open("rb") as flat:
        assert flat.read(CLUSTER * 3) == base.read_bytes() and flat.read(CLUSTER) == bytes(CLUSTER)


def test_flattening_puts_every_block_in_its_place(tmp_path: Path, overlay: Path) -> None:
    rng = random.Random(1)
    expected = bytearray(rng.randbytes(CLUSTER * 6))
    (tmp_path / "base").write_bytes(expected)
    expected += bytes(CLUSTER * 2)
    for cluster in (7, 0, 1, 3, 5):
        numbers = range(32) if cluster < 2 else rng.sample(range(32), 20)
        content = {number: rng.randbytes(BLOCK) for number in numbers[:10]} if cluster == 3 else {}
        content = content or {number: rng.randbytes(BLOCK) for number in numbers}
        zeros = tuple(numbers[10:]) if cluster == 3 else ()
        fill(overlay, cluster, content, zeros)
        for number, data in [*content.items(), *((number, bytes(BLOCK)) for number in zeros)]:
            start = cluster * CLUSTER + number * BLOCK
            expected[start : start + BLOCK] = data
    fill(overlay, 4, {}, tuple(range(32)))
    expected[4 * CLUSTER : 5 * CLUSTER] = bytes(CLUSTER)
    flatten(tmp_path / "base", overlay, tmp_path / "flat")
    with (tmp_path / "flat").open("rb") as flat:
        assert flat.read(len(expected)) == expected
        assert flat.seek(0, os.SEEK_END) == 3 * GIB
        assert os.lseek(flat.fileno(), 4 * CLUSTER, os.SEEK_DATA) == 5 * CLUSTER, "zeros are a hole"


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (0, ">I", 0),
        (4, ">I", 2),
        (8, ">Q", 512),  # the name of a base
        (16, ">I", 9),
        (20, ">I", 16),
        (24, ">Q", 0),
        (24, ">Q", 513),
        (24, ">Q", 2**63),
        (32, ">I", 1),
        (36, ">I", 2**31),
        (60, ">I", 1),  # snapshots
        (72, ">Q", 1 << 4 | 1 << 2),  # its data in a file of another name
        (72, ">Q", 0),
        (80, ">Q", 1),
        (88, ">Q", 1),
        (96, ">I", 6),
        (100, ">I", 112),
        (104, ">Q", 0x44415441 << 32),  # the name of that file
    ],
)
def test_a_header_that_says_more_than_ours_is_refused(overlay: Path, offset: int, form: str, value: int) -> None:
    put(overlay, offset, form, value)
    with pytest.raises(ServerError) as refused:
        disk_size(overlay)
    assert refused.value.public == "a captured disk is damaged"


def test_a_file_that_ends_in_its_header_is_refused(tmp_path: Path) -> None:
    for size in (0, 50, HEADER - 1):
        (tmp_path / "short").write_bytes(bytes(size))
        with pytest.raises(ServerError):
            disk_size(tmp_path / "short")


@pytest.mark.parametrize("place", [CLUSTER + 512, 100 * CLUSTER, 0, 1 << 62 | 4 * CLUSTER])
def test_tables_that_lead_out_of_the_file_are_refused(tmp_path: Path, overlay: Path, place: int) -> None:
    (tmp_path / "base").write_bytes(b"x")
    fill(overlay, 3, {0: b"x" * BLOCK})
    put(overlay, first_table(overlay) + 3 * 16, ">Q", place)
    with pytest.raises(ServerError):
        flatten(tmp_path / "base", overlay, tmp_path / "flat")


@given(st.lists(st.tuples(st.integers(0, 5 * CLUSTER), st.binary(min_size=1, max_size=64)), max_size=6))
def test_garbage_is_refused_or_a_disk(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, bytes]]
) -> None:
    place = tmp_path_factory.mktemp("garbage")
    (place / "base").write_bytes(b"x" * 5000)
    make_overlay(place / "overlay", GIB)
    fill(place / "overlay", 3, {1: b"y" * BLOCK})
    with (place / "overlay").open("r+b") as file:
        for offset, data in writes:
            os.pwrite(file.fileno(), data, offset)
    try:
        flatten(place / "base", place / "overlay", place / "flat")
    except PandastackError:
        return
    assert (place / "flat").stat().st_size <= 1024 * GIB


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with pytest.raises((ServerError, StorageFullError)):
        make_overlay(Path("/proc/overlay"), GIB)


def count(overlay: Path, cluster: int, uses: int) -> None:
    """Record how often a cluster is used, as a VMM does before it uses it."""
    put(overlay, 2 * CLUSTER + cluster * 2, ">H", uses)


def written(overlay: Path) -> int:
    """Write two clusters of the disk as a VMM would; returns the number of the last one in the file."""
    fill(overlay, 0, {0: b"x" * BLOCK})
    fill(overlay, 9, {1: b"y" * BLOCK})
    for cluster in (4, 5, 6):
        count(overlay, cluster, 1)
    return 6


def test_a_whole_overlay_passes(overlay: Path) -> None:
    check(overlay)
    last = written(overlay)
    check(overlay)
    count(overlay, last + 1, 1)  # a VMM was killed after it had counted a cluster, and before it used it
    check(overlay)


@pytest.mark.parametrize("uses", [0, 2])
def test_a_cluster_that_is_used_but_not_counted_once_is_damage(overlay: Path, uses: int) -> None:
    """The next write would take it for free."""
    count(overlay, written(overlay), uses)
    with pytest.raises(ServerError, match="not an overlay"):
        check(overlay)


def test_a_cluster_that_is_used_twice_is_damage(overlay: Path) -> None:
    written(overlay)
    put(overlay, first_table(overlay) + 5 * 16, ">QQ", 6 * CLUSTER | COPIED, 1)
    with pytest.raises(ServerError, match="not an overlay"):
        check(overlay)


@pytest.mark.parametrize("place", [3 * CLUSTER, 9 * CLUSTER, 100 * CLUSTER, 2**55])
def test_a_table_that_leads_elsewhere_is_damage(overlay: Path, place: int) -> None:
    written(overlay)
    put(overlay, 3 * CLUSTER, ">Q", place | COPIED)
    with pytest.raises(ServerError, match="not an overlay"):
        check(overlay)


@pytest.mark.parametrize("length", [0, 100, 2 * CLUSTER, 4 * CLUSTER, 5 * CLUSTER])
def test_a_file_that_was_cut_is_damage(overlay: Path, length: int) -> None:
    written(overlay)
    os.truncate(overlay, length)
    with pytest.raises(ServerError, match="not an overlay"):
        check(overlay)


@given(st.lists(st.tuples(st.integers(0, 8 * CLUSTER), st.binary(min_size=1, max_size=16)), max_size=6))
def test_whatever_is_in_the_file_is_whole_or_damaged(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, bytes]]
) -> None:
    overlay = tmp_path_factory.mktemp("torn") / "overlay"
    make_overlay(overlay, 3 * GIB)
    written(overlay)
    with overlay.open("r+b") as file:
        for offset, data in edits:
            os.pwrite(file.fileno(), data, offset)
    try:
        check(overlay)
    except PandastackError as error:
        assert "not an overlay" in str(error)
