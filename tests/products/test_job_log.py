"""The log of a job: order and streams, beginning and end, followers."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from pandastack.contract.records import STDERR, STDOUT, Output
from pandastack.products.runners.log import JobLog

pytestmark = pytest.mark.anyio


async def read(log: JobLog, *, follow: bool = False) -> list[Output]:
    return [each async for each in log.read(follow=follow)]


async def test_streams_and_their_order_are_kept_also_by_another_server(tmp_path: Path) -> None:
    log = JobLog(tmp_path / "log")
    assert await read(log) == []
    pieces = [Output(STDOUT, b"a"), Output(STDERR, b"b\xff"), Output(STDOUT, b"c")]
    for each in pieces:
        log.add(each)
    assert await read(log) == pieces
    log.close()
    assert await read(JobLog(tmp_path / "log", closed=True), follow=True) == pieces


async def test_a_follower_sees_what_comes_until_the_end(tmp_path: Path) -> None:
    log, seen = JobLog(tmp_path / "log"), list[bytes]()

    async def follow() -> None:
        async for each in log.read(follow=True):
            seen.append(each.data)
            log.add(Output(STDOUT, b"2")) if each.data == b"1" else log.close()

    log.add(Output(STDOUT, b"1"))
    with anyio.fail_after(10):
        await follow()
    assert seen == [b"1", b"2"]


async def test_of_a_long_log_the_beginning_and_the_end_are_kept(tmp_path: Path) -> None:
    log = JobLog(tmp_path / "log", most=1000, end=100)
    for number in range(1000):
        log.add(Output(STDOUT, b"%06d" % number))
    log.close()
    text = b"".join(each.data for each in await read(log)).decode()
    assert text.startswith("000000000001") and text.endswith("000998000999")
    assert "bytes are left out here]" in text
    assert (tmp_path / "log").stat().st_size < 1000 + 400


async def test_what_fits_exactly_is_whole(tmp_path: Path) -> None:
    log = JobLog(tmp_path / "log", most=20, end=100)
    for each in (b"0" * 10, b"1" * 50, b"2" * 40):
        log.add(Output(STDOUT, each))
    log.close()
    assert b"".join(each.data for each in await read(log)) == b"0" * 10 + b"1" * 50 + b"2" * 40


async def test_a_job_that_printed_nothing_has_an_empty_log(tmp_path: Path) -> None:
    log = JobLog(tmp_path / "log")
    log.close()
    log.close()
    assert await read(log, follow=True) == []
