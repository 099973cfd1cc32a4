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
    def take(self, wanted: int | None = None) -> Iterator[int]:
        """A number for as long as the block runs: ``wanted``, else the lowest.

        Raises :class:`CapacityError` when all are taken, or the wanted one is.
        """
        if not self._free or (wanted is not None and wanted not in self._free):
            raise CapacityError("no compute capacity available: every slot of this host is taken")
        if wanted is None:
            slot = heapq.heappop(self._free)
        else:
            slot = wanted
            self._free.remove(slot)
            heapq.heapify(self._free)
        try:
            yield slot
        finally:
            heapq.heappush(self._free, slot)
