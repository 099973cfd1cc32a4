"""A sleep that can be cut short when something is due earlier than it was known."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio


class Alarm:
    """Times are epoch seconds by ``clock``."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._due = 0.0
        self._earlier = anyio.Event()

    def expect(self, at: float) -> None:
        """Something is due ``at``: the sleeper wakes then at the latest."""
        if at < self._due:
            self._due = at
            self._earlier.set()

    async def sleep_until(self, at: float) -> None:
        """Wait for ``at`` or for something that is due before, whichever comes first."""
        self._due, self._earlier = at, anyio.Event()
        while (left := self._due - self._clock()) > 0:
            with anyio.move_on_after(left):
                await self._earlier.wait()
                self._earlier = anyio.Event()
        self._due = 0.0  # awake: the sleeper looks at everything anyway
