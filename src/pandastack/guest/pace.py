"""Pacing: guests that send very many small frames must not monopolise the event loop."""

from __future__ import annotations

import time

import anyio

SMALL = 512
"""A frame with a smaller payload (bytes) costs more to parse than to carry."""
BURST = 256
"""Small frames that are processed before other tasks get their turn."""
_REST = 4
"""Busy guests together get one part in this many of the loop's time."""

_free_at = 0.0


class Pace:
    """The pace of one guest. All of a process share a clock: two floods get no more of the loop than one."""

    def __init__(self) -> None:
        self._count = 0
        self._spent = 0.0
        self._began = 0.0

    def begin(self) -> None:
        """Start the clock: work on received data begins."""
        self._began = time.perf_counter()

    def end(self) -> None:
        """Stop the clock: that work ends for now."""
        self._spent += time.perf_counter() - self._began

    def is_over(self, size: int) -> bool:
        """Whether other tasks are due after a frame with ``size`` bytes; if so, call :meth:`give_way`."""
        if size < SMALL:
            self._count += 1
        return self._count >= BURST

    async def give_way(self) -> None:
        """Wait until the time spent on this guest's frames is small compared with the time of all other tasks."""
        global _free_at
        self.end()
        now = time.perf_counter()
        _free_at = max(_free_at, now) + self._spent * (_REST - 1)
        self._count, self._spent = 0, 0.0
        await anyio.sleep(_free_at - now)
        self.begin()
