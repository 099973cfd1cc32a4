"""Sandboxes whose machine was lost: the disks are kept, as a hibernated sandbox without memory.

A VMM that is killed leaves its disks whole: what its guest had synced is in the host's page cache. A crash of the host
may leave them torn, because machines do not wait for the physical disk. An overlay that is torn is given up here; what
is wrong in the file system in it, the guest repairs when it boots.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from pandastack.engine import origins
from pandastack.engine.machines import journal
from pandastack.engine.machines.journal import Entry
from pandastack.engine.machines.state import LOSABLE, MachineState
from pandastack.engine.origins.captures import CaptureStore
from pandastack.errors import PandastackError
from pandastack.host.processes.identity import boot_id

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LostMachines:
    """Keeps the disks of the machines in the directory ``machines`` in ``asleep``."""

    machines: Path
    asleep: CaptureStore

    async def keep(self, entry: Entry, reason: str) -> None:
        """Keep the disks of a machine that has ended. A failure is reported: the sandbox is lost then."""
        try:
            await self.asleep.keep(
                entry.sandbox,
                partial(_fill, self.machines / entry.machine, entry, reason),
                replace=entry.state is not MachineState.HIBERNATING,  # a whole capture of it has the memory, too
            )
        except (PandastackError, OSError) as error:
            log.error("machine.disks_lost", sandbox_id=entry.sandbox, reason=reason, error=str(error))
        else:
            log.warning("machine.disks_kept", sandbox_id=entry.sandbox, reason=reason)

    async def keep_all(self, adopted: Collection[Entry]) -> None:
        """Keep the disks of all machines that a former engine has left and that are not ``adopted``."""
        found = [journal.read(each) for each in sorted(self.machines.iterdir())] if self.machines.exists() else []
        for entry in find_lost([each for each in found if each], {each.sandbox for each in adopted}):
            await self.keep(entry, why_lost(entry, boot_id()))


def find_lost(entries: Iterable[Entry], adopted: Collection[str]) -> list[Entry]:
    """The machines that were sandboxes', one for each: of two, that which a rewind has put into the other's place."""
    lost: dict[str, Entry] = {}
    for entry in entries:
        if entry.sandbox and entry.state in LOSABLE and entry.sandbox not in adopted:
            former = lost.get(entry.sandbox)
            if former is None or former.state is MachineState.REWINDING:
                lost[entry.sandbox] = entry
    return list(lost.values())


def why_lost(entry: Entry, boot: str) -> str:
    """The reason, for people; ``boot`` is the id of the host's present boot."""
    if entry.process is None or entry.process.boot_id != boot:
        return "the host was restarted"
    return "its machine ended while no server ran"


def _fill(machine: Path, entry: Entry, reason: str, directory: Path) -> None:
    origins.keep_disks(machine, directory, reason)
    origins.write_spec(directory, entry.spec)
