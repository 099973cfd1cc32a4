"""Which VMM runs the machines of this host. The only module of the engine that knows of a particular one."""

from __future__ import annotations

from pandastack.vmm.driver import Driver
from pandastack.vmm.qemu import preload
from pandastack.vmm.qemu.driver import open_qemu


async def open_driver() -> Driver:
    """The driver for the VMM installed on this host. Raises :class:`ServerError` when there is none."""
    return await open_qemu()


def find_memory_remedy() -> str | None:
    """What to do so that machines open their shared memory image read-only; ``None`` if they already do."""
    return None if preload.is_possible() else preload.REMEDY
