"""The control plane's own events: who receives which, in which order."""

from __future__ import annotations

import anyio
import pytest

from pandastack.services.records.bus import Bus, CommandEnded, SandboxUsed

pytestmark = pytest.mark.anyio


async def test_subscribers_receive_their_kinds_in_order_and_only_while_they_listen() -> None:
    bus = Bus()
    bus.publish(CommandEnded("before"))
    with bus.subscribe(CommandEnded) as ends, bus.subscribe(CommandEnded, SandboxUsed) as both:
        for event in (CommandEnded("a"), SandboxUsed("b"), CommandEnded("c")):
            bus.publish(event)
        assert [await anext(ends), await anext(ends)] == [CommandEnded("a"), CommandEnded("c")]
        assert [await anext(both) for _ in range(3)] == [CommandEnded("a"), SandboxUsed("b"), CommandEnded("c")]
    bus.publish(CommandEnded("after"))
    assert bus._subscribers == []


async def test_a_subscriber_that_is_cancelled_is_forgotten() -> None:
    bus = Bus()

    async def listen(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        with bus.subscribe(CommandEnded) as events:
            task_status.started()
            async for _ in events:
                pass

    async with anyio.create_task_group() as tasks:
        await tasks.start(listen)
        bus.publish(CommandEnded("a"))
        tasks.cancel_scope.cancel()
    assert bus._subscribers == []
