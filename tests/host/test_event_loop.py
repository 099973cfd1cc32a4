"""The tests' own event loop: which faults of callbacks it reports."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support.event_loop import Loop


async def after(*, cancelled: bool) -> list[Any]:
    """What is reported when the result of a future is set that was cancelled, or has a result."""
    loop, reported = asyncio.get_running_loop(), list[Any]()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    future = loop.create_future()
    if cancelled:
        future.cancel()
    else:
        future.set_result(None)
    loop.call_soon(future.set_result, None)
    await asyncio.sleep(0.001)
    return reported


def test_only_the_result_of_a_cancelled_wait_is_of_no_interest() -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(after(cancelled=True)) == []
        assert [type(each) for each in runner.run(after(cancelled=False))] == [asyncio.InvalidStateError]
    with asyncio.Runner() as runner:
        assert [type(each) for each in runner.run(after(cancelled=True))] == [asyncio.InvalidStateError]
