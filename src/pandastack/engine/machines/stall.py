"""Stalled machines: paused because the storage pool is full, resumed when it no longer is."""

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
"""Seconds between two checks of a full pool."""


async def relieve(machine: Machine, directory: Path, journal: Journal, tell: Callable[[str, bool], None]) -> None:
    """Whenever ``machine`` stalls, resume it once the pool around ``directory`` has more than its reserve free.

    ``tell`` gets the sandbox's id and whether it is stalled. Runs until cancelled or the VMM is gone.
    """
    with suppress(PandastackError, OSError):
        while True:
            await machine.wait_stalled()
            log.warning("machine.stalled", reason="the storage pool is full", sandbox_id=journal.entry.sandbox)
            tell(journal.entry.sandbox, True)
            while machine.stalled:
                await anyio.sleep(PAUSE)
                if shutil.disk_usage(directory).free > RESERVE:
                    await machine.retry()
            tell(journal.entry.sandbox, False)
