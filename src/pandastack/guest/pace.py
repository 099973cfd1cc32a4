"""Keeping guests that send very many small frames from taking the event loop from everybody else."""

from __future__ import annotations

import time

import anyio

SMALL = 512
"""Bytes of payload below which a frame costs more to look at than to carry."""
BURST = 256
"""Small frames that are taken before others get their turn."""
_REST = 4
"""Of the loop's time, busy guests together get one part in so many."""

_free_at = 0.0


class Pace:
    """One guest's. All of one process share a clock: two floods get no more of the loop than one."""

    def __init__(self) -> None:
        self._count = 0
        self._spent = 0.0
        self._began = 0.0

    def begin(self) -> None:
        """Work on what was received begins now."""
        self._began = time.perf_counter()

    def end(self) -> None:
        """It ends for now."""
        self._spent += time.perf_counter() - self._began

    def is_over(self, size: int) -> bool:
        """Whether it is the others' turn, after a frame with ``size`` bytes: then :meth:`give_way`."""
        if size < SMALL:
            self._count += 1
        return self._count >= BURST

    async def give_way(self) -> None:
        """Wait until the time that this guest's frames took is small beside what everybody else had."""
        global _free_at
        self.end()
        now = time.perf_counter()
        _free_at = max(_free_at, now) + self._spent * (_REST - 1)
        self._count, self._spent = 0, 0.0
        await anyio.sleep(_free_at - now)
        self.begin()
