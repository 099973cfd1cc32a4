"""Machines that stand still because the storage pool is full, and run again when it is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import structlog

from pandastack.disks.pool import RESERVE
from pandastack.engine.machines.journal import Journal
from pandastack.errors import PandastackError
from pandastack.vmm.driver import Machine

log = structlog.get_logger(__name__)

PAUSE = 1.0
"""Seconds between two looks at a full pool."""


async def relieve(machine: Machine, directory: Path, journal: Journal, tell: Callable[[str, bool], None]) -> None:
    """Whenever ``machine`` stalls, let it run again once the pool around ``directory`` has more than its reserve free.

    ``tell`` gets the sandbox's id and whether it stands still. Runs until cancelled or the VMM is gone.
    """
    with suppress(PandastackError, OSError):
        while True:
            await machine.wait_stalled()
            log.warning("a machine stands still: the storage pool is full", sandbox_id=journal.entry.sandbox)
            tell(journal.entry.sandbox, True)
            while machine.stalled:
                await anyio.sleep(PAUSE)
                if shutil.disk_usage(directory).free > RESERVE:
                    await machine.retry()
            tell(journal.entry.sandbox, False)
