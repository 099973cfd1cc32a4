"""File operations through the real agent."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pandastack.errors import BadRequestError, NotFoundError, StorageFullError
from pandastack.guest import Channel

SMALL = ("-t", "tmpfs", "-o", "size=64k", "none")
"""A file system of 64 KiB."""


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


@contextmanager
def mounted_at(path: Path, *words: str | Path) -> Iterator[None]:
    """What ``mount WORDS PATH`` mounts, where this machine lets us."""
    mounted = subprocess.run(["mount", *words, path], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


async def content(channel: Channel, path: Path | str, **options: int) -> bytes:
    return b"".join([chunk async for chunk in channel.read_file(str(path), **options)])


async def test_what_is_written_is_read(channel: Channel, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    path = tmp_path / "a/b/file"
    assert await channel.write_file(str(path), pieces(data[:10], b"", data[10:]), mode=0o600) == len(data)
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o7777 == 0o600
    assert await content(channel, path) == data
    assert await content(channel, path, offset=5, length=100_000) == data[5:100_005]


async def test_writing_truncates(channel: Channel, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"long content")
    assert await channel.write_file(str(path), pieces()) == 0
    assert path.read_bytes() == b""


async def test_proc_files_are_read_to_their_end(channel: Channel) -> None:
    assert b"MemTotal" in await content(channel, "/proc/meminfo")


async def test_what_is_no_regular_file_is_refused(channel: Channel, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(BadRequestError):
            await content(channel, path)
        with pytest.raises(BadRequestError):
            await channel.write_file(str(path), pieces(b"x"))
    with pytest.raises(NotFoundError, match="No such file"):
        await content(channel, tmp_path / "missing")
    with pytest.raises(BadRequestError, match="absolute"):
        await content(channel, "relative")


@pytest.mark.root
async def test_a_full_disk_is_said_so(channel: Channel, tmp_path: Path) -> None:
    with mounted_at(tmp_path, *SMALL), pytest.raises(StorageFullError):
        await channel.write_file(str(tmp_path / "big"), pieces(bytes(1_000_000)))


async def test_listing_and_stat(channel: Channel, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("dir")
    (tmp_path / os.fsdecode(b"bad\xff")).touch()
    entries = {entry.name: entry for entry in await channel.list(str(tmp_path))}
    assert set(entries) == {"dir", "file", "link", "bad\ufffd"}
    assert [entries[name].is_dir for name in ("dir", "file", "link")] == [True, False, False]
    assert entries["file"].size == 5
    assert entries["file"].mode_text.startswith("-rw")
    assert entries["file"].mtime == int((tmp_path / "file").stat().st_mtime)
    followed = await channel.stat(str(tmp_path / "link"))
    assert followed.is_dir
    assert followed.name == "link"
    with pytest.raises(NotFoundError):
        await channel.stat(str(tmp_path / "missing"))
    with pytest.raises(BadRequestError):
        await channel.list(str(tmp_path / "file"))


async def test_a_listing_longer_than_the_window(channel: Channel, tmp_path: Path) -> None:
    names = {f"{number:05}-{'n' * 120}" for number in range(3000)}
    for name in names:
        (tmp_path / name).touch()
    assert [entry.name for entry in await channel.list(str(tmp_path))] == sorted(names)


async def test_delete_takes_trees_but_follows_no_link(channel: Channel, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    deep = tmp_path / "tree" / "/".join(["d"] * 50)
    deep.mkdir(parents=True)
    for number in range(300):
        (tmp_path / "tree" / f"{number}").touch()
    (tmp_path / "tree" / "link").symlink_to(kept)
    await channel.delete(str(tmp_path / "tree/"))
    await channel.delete(str(tmp_path / "tree"))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").exists()


async def test_delete_refuses_the_root(channel: Channel) -> None:
    for path in ("/", "//", "/.", "/usr/.."):
        with pytest.raises(BadRequestError):
            await channel.delete(path)


@pytest.mark.root
async def test_delete_stops_at_a_mount(channel: Channel, tmp_path: Path) -> None:
    inner = tmp_path / "tree/mount"
    inner.mkdir(parents=True)
    with mounted_at(inner, *SMALL):
        (inner / "file").touch()
        with pytest.raises(BadRequestError):
            await channel.delete(str(tmp_path / "tree"))
        assert (inner / "file").exists()


async def test_mkdir_and_sync(channel: Channel, tmp_path: Path) -> None:
    await channel.mkdir(str(tmp_path / "x/y/z"))
    await channel.mkdir(str(tmp_path / "x/y/z"))
    assert (tmp_path / "x/y/z").is_dir()
    await channel.sync()


async def test_a_read_left_early_stops(channel: Channel, tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(bytes(10_000_000))
    stream = channel.read_file(str(path))
    assert await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert await channel.ping() < 5


async def broken_off(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece
    raise BadRequestError("too large")


async def test_a_transfer_that_is_broken_off_changes_nothing(channel: Channel, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(BadRequestError, match="too large"):
        await channel.write_file(str(path), broken_off(b"new", b"x" * 100_000))
    await channel.stat(str(path))  # the agent has seen the end of the transfer by now
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


async def test_a_replaced_file_keeps_its_mode_and_the_way_to_it(channel: Channel, tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"old")
    path.chmod(0o750)
    link.symlink_to("file")
    assert await channel.write_file(str(link), pieces(b"new")) == 3
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o7777 == 0o750
    assert {each.name for each in tmp_path.iterdir()} == {"file", "link"}


async def test_a_link_to_nowhere_makes_its_target(channel: Channel, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    await channel.write_file(str(tmp_path / "link"), pieces(b"new"))
    assert (tmp_path / "target").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()


async def test_a_file_with_several_links_stays_one_file(channel: Channel, tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"old")
    other.hardlink_to(path)
    await channel.write_file(str(path), pieces(b"new"))
    assert other.read_bytes() == b"new"


@pytest.mark.root
async def test_a_full_disk_leaves_the_old_content(channel: Channel, tmp_path: Path) -> None:
    with mounted_at(tmp_path, *SMALL):
        path = tmp_path / "file"
        path.write_bytes(b"old")
        with pytest.raises(StorageFullError):
            await channel.write_file(str(path), pieces(b"x" * 200_000))
        assert path.read_bytes() == b"old"
        assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.root
async def test_a_mount_point_is_written_in_place(channel: Channel, tmp_path: Path) -> None:
    path, source = tmp_path / "file", tmp_path / "source"
    path.write_bytes(b"")
    source.write_bytes(b"old and long")
    with mounted_at(path, "--bind", source):
        await channel.write_file(str(path), pieces(b"new"))
        assert source.read_bytes() == b"new"
