"""Numbers for machines: the lowest that is free."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import contextmanager

from pandastack.errors import CapacityError


class Slots:
    """A bounded set of small integers, each held by at most one machine."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))

    @contextmanager
    def take(self) -> Iterator[int]:
        """A number for as long as the block runs. Raises :class:`CapacityError` when all are taken."""
        if not self._free:
            raise CapacityError("no compute capacity available: every slot of this host is taken")
        slot = heapq.heappop(self._free)
        try:
            yield slot
        finally:
            heapq.heappush(self._free, slot)
