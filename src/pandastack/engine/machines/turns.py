"""Turns: a few tasks work at a time, in the order in which they came."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from pandastack.errors import CapacityError


class Turns:
    """At most ``at_once`` tasks have a turn; up to ``most_waiting`` others wait for theirs, first come first served."""

    def __init__(self, at_once: int, most_waiting: int) -> None:
        self._limiter = anyio.CapacityLimiter(at_once)
        self._most_waiting = most_waiting

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait, and have a turn for as long as the block runs.

        A task that is cancelled while it waits leaves the queue. Raises :class:`CapacityError` at once when the queue
        is full.
        """
        waiting = self._limiter.statistics().tasks_waiting
        if waiting >= self._most_waiting:
            raise CapacityError(
                "too many sandboxes are waiting for their start",
                hint=f"{waiting} wait already: try again in a few seconds",
            )
        async with self._limiter:
            yield
