"""A sleep that ends early when something becomes due earlier than expected."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio


class Alarm:
    """Lets one task sleep until a time that others can bring forward. Times are epoch seconds by ``clock``."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._due = 0.0
        self._earlier = anyio.Event()

    def expect(self, at: float) -> None:
        """Wake the sleeper ``at`` that time at the latest."""
        if at < self._due:
            self._due = at
            self._earlier.set()

    async def sleep_until(self, at: float) -> None:
        """Wait until ``at``, or until an earlier time that was set meanwhile."""
        self._due, self._earlier = at, anyio.Event()
        while (left := self._due - self._clock()) > 0:
            with anyio.move_on_after(left):
                await self._earlier.wait()
                self._earlier = anyio.Event()
        self._due = 0.0  # the sleeper is awake and will check everything anyway
