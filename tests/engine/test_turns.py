"""Turns are taken in the order of arrival, a few at a time, and a task that stops waiting holds nobody up."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from pandastack.engine.machines.turns import Turns
from pandastack.errors import CapacityError

pytestmark = pytest.mark.anyio


class Workers:
    """Tasks that take a turn each and stay in it until they are told to end."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._ends: dict[int, anyio.Event] = {}
        self.began: list[int] = []
        self.scopes: dict[int, anyio.CancelScope] = {}

    async def work(self, number: int) -> None:
        self._ends[number] = anyio.Event()
        with anyio.CancelScope() as scope:
            self.scopes[number] = scope
            async with self._turns.turn():
                self.began.append(number)
                await self._ends[number].wait()

    async def end(self, number: int) -> None:
        self._ends[number].set()
        await settle()


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(10):
        await checkpoint()


async def test_first_come_first_served() -> None:
    workers = Workers(Turns(2, 10))
    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(workers.work, number)
            await settle()
        assert workers.began == [0, 1]
        await workers.end(1)
        assert workers.began == [0, 1, 2]
        await workers.end(0)
        await workers.end(2)
        assert workers.began == [0, 1, 2, 3, 4]
        await workers.end(3)
        await workers.end(4)


async def test_a_newcomer_does_not_overtake() -> None:
    workers = Workers(Turns(1, 10))
    async with anyio.create_task_group() as tasks:
        for number in range(2):
            tasks.start_soon(workers.work, number)
            await settle()
        workers.scopes[0].cancel()  # its turn is free, and the first in the queue has not run yet
        tasks.start_soon(workers.work, 2)
        await settle()
        assert workers.began == [0, 1]
        await workers.end(1)
        await workers.end(2)
    assert workers.began == [0, 1, 2]


async def test_a_cancelled_task_leaves_the_queue_or_its_turn() -> None:
    workers = Workers(Turns(1, 10))
    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(workers.work, number)
            await settle()
        workers.scopes[1].cancel()
        workers.scopes[0].cancel()
        await settle()
        assert workers.began == [0, 2]
        workers._ends[2].set()
        workers.scopes[3].cancel()  # in the moment in which it gets its turn
        await settle()
        tasks.start_soon(workers.work, 4)
        await settle()
        assert workers.began[-1] == 4
        await workers.end(4)


async def test_a_full_queue_refuses() -> None:
    turns = Turns(1, 1)
    workers = Workers(turns)
    async with anyio.create_task_group() as tasks:
        for number in range(2):
            tasks.start_soon(workers.work, number)
            await settle()
        with pytest.raises(CapacityError, match="waiting for their start") as refused:
            async with turns.turn():
                pytest.fail("it had no turn")
        assert refused.value.retry_after > 0
        await workers.end(0)
        await workers.end(1)
    async with turns.turn():
        pass
