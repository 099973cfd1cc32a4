"""The log of a build: its limit, its end, and its readers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import anyio
import pytest

from pandastack.products.builds.log import BuildLog

pytestmark = pytest.mark.anyio


async def text_of(log: BuildLog, *, follow: bool = False) -> bytes:
    return b"".join([piece async for piece in log.read(follow=follow)])


async def test_a_follower_gets_everything_until_the_end(tmp_path: Path) -> None:
    log, found = BuildLog(tmp_path / "log"), list[bytes]()

    async def follow() -> None:
        found.append(await text_of(log, follow=True))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            log.add(b"one ")
            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            log.add(b"two ")
            await anyio.wait_all_tasks_blocked()
            assert found == []
            log.add(b"three")
            log.close()
    assert found == [b"one two three"]


async def test_without_following_a_reader_gets_what_is_there(tmp_path: Path) -> None:
    log = BuildLog(tmp_path / "log")
    assert await text_of(log) == b""
    log.add(b"x" * 200_000)
    assert await text_of(log) == b"x" * 200_000


@pytest.mark.parametrize(("pieces", "cut"), [([10], False), ([4, 6], False), ([11], True), ([10, 1], True)])
async def test_only_what_is_over_the_limit_is_dropped_and_said_once(
    tmp_path: Path, pieces: list[int], cut: bool
) -> None:
    log = BuildLog(tmp_path / "log", most=10)
    for size in (*pieces, *([5] if cut else [])):
        log.add(b"x" * size)
    found = await text_of(log)
    assert found.count(b"the rest is dropped") == int(cut)
    assert found.startswith(b"x" * 10)
    assert found.partition(b"\n")[0] == b"x" * 10
    assert log.sha256() == hashlib.sha256(found).hexdigest()


async def test_the_tail_is_the_end_even_beyond_the_limit(tmp_path: Path) -> None:
    log = BuildLog(tmp_path / "log", most=10)
    log.add(b"x" * 5000)
    log.add("the énd".encode())
    assert log.tail.endswith("xxthe énd")
    assert len(log.tail.encode()) == 4096


async def test_an_ended_log_is_read_by_a_later_server(tmp_path: Path) -> None:
    first = BuildLog(tmp_path / "log")
    first.add(b"one")
    assert await text_of(BuildLog(tmp_path / "log", closed=True), follow=True) == b"one"
    assert await text_of(BuildLog(tmp_path / "none", closed=True), follow=True) == b""
