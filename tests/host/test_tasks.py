"""Work that is begun ahead of its need."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from pandastack.host.tasks import ahead

pytestmark = pytest.mark.anyio


async def test_the_result_is_there_whenever_it_is_asked_for() -> None:
    begun, may_end = anyio.Event(), anyio.Event()

    async def work() -> int:
        begun.set()
        await may_end.wait()
        return 42

    async with ahead(work) as result:
        await begun.wait()
        may_end.set()
        assert [await result(), await result()] == [42, 42]


async def test_its_error_comes_out_where_the_result_is_asked_for() -> None:
    async def work() -> None:
        raise ValueError("no room")

    async with ahead(work) as result:
        with pytest.raises(ValueError, match="no room"):
            await result()
    with pytest.raises(KeyError):
        async with ahead(work):
            raise KeyError("the block's own")


async def test_a_block_that_ends_cancels_it() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("cancelled")

    async with ahead(work):
        await anyio.lowlevel.checkpoint()
    assert ended == ["cancelled"]
