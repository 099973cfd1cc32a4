"""Whether the host has room for one more machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pandastack.disks.pool import RESERVE, Pool
from pandastack.errors import CapacityError, StorageFullError
from pandastack.host import facts

MEMORY_RESERVE = 512 * 1024**2
"""Bytes of the host's memory that no sandbox is started into."""

MACHINE_BYTES = 32 * 1024**2
"""What a sandbox takes at its start: reserved before one is made."""


class Admission:
    """Refuses machines that the host has no room for, before anything of them exists."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._beginning = 0

    def check(self, count: int = 1) -> None:
        """Refuse ``count`` more machines when memory or storage would run out, those that are being made included."""
        if not count:
            return
        if facts.available_memory_bytes() - (count + self._beginning) * MACHINE_BYTES < MEMORY_RESERVE:
            raise CapacityError(
                "insufficient host memory for sandbox",
                status_code=507,
                hint="delete sandboxes that are no longer needed, or add memory to the host",
            )
        self.check_storage()

    def check_storage(self) -> None:
        """Refuse what would write to the pool when it is nearly full."""
        if self._pool.free_bytes() < RESERVE:
            raise StorageFullError(
                "insufficient host storage for sandbox",
                hint=f"free space in the storage pool at {self._pool.directory}",
            )

    @contextmanager
    def admitted(self, count: int = 1) -> Iterator[None]:
        """:meth:`check`, and count the machines as being made inside the block."""
        self.check(count)
        self._beginning += count
        try:
            yield
        finally:
            self._beginning -= count
