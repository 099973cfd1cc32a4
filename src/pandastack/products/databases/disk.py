"""Disks of databases: a volume that the template brings along, which grows while the server writes to it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import anyio

from pandastack.contract.events import MachineContinued, MachineStalled
from pandastack.errors import GuestError, PandastackError
from pandastack.model.caller import Caller
from pandastack.products.databases.spec import DISK, SIZES
from pandastack.services import ControlPlane
from pandastack.store.databases import DatabaseRecord

_MIB = 1024
"""Of a GiB."""

LOOK = f"df -P -k {DISK}; if test -e /run/postgresql/full.conf; then echo read-only; fi"
"""What a guest runs for :func:`disk_of`. The file is there while the server has the room that is kept for its log."""

FULL_BYTES = 48 * 1024**2
"""Less free space than three files of the log take counts as none."""
NEARLY_FULL_PCT = 90.0
_MOST_BYTES = 1 << 60
_FRESH_SECONDS = 10.0
_LOOK_SECONDS = 2.0
_STALLS = (MachineStalled.KIND, MachineContinued.KIND)
_LATEST_EVENTS = 50


class DiskState(StrEnum):
    """Whether a database can write."""

    OK = "ok"
    NEARLY_FULL = "nearly_full"
    FULL = "full"
    """Statements that need room fail (SQLSTATE 53100)."""
    READ_ONLY = "read_only"
    """The log found no room, and the server uses the room that is kept for it: writes fail (25006) unless the
    transaction says ``READ WRITE``."""
    WAITING = "waiting"
    """The storage of the host is full: the machine stands still, and continues once there is room."""


@dataclass(frozen=True, slots=True)
class Room:
    """What was found of a disk. ``used_pct`` is None where the machine stands still."""

    state: DiskState
    used_pct: float | None = None


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk as the guest sees it, in bytes. ``reserve_used``: what is kept for the log is in use."""

    size: int
    used: int
    free: int
    reserve_used: bool = False

    @property
    def used_pct(self) -> float:
        """Of what the database can have."""
        usable = self.used + self.free
        return round(100 * self.used / usable, 2) if usable else 0.0

    @property
    def state(self) -> DiskState:
        """Whether there is room."""
        if self.reserve_used:
            return DiskState.READ_ONLY
        if self.free < FULL_BYTES:
            return DiskState.FULL
        return DiskState.NEARLY_FULL if self.used_pct >= NEARLY_FULL_PCT else DiskState.OK


def disk_of(printed: str) -> Disk:
    """The disk that :data:`LOOK` tells of. Raises :class:`GuestError`."""
    try:
        _, numbers, *rest = printed.splitlines()
        size, used, free = (int(each) * 1024 for each in numbers.split()[1:4])
        if not all(0 <= each <= _MOST_BYTES for each in (size, used, free)):
            raise ValueError(numbers)
    except ValueError as error:
        raise GuestError("the database server's numbers are malformed") from error
    return Disk(size, used, free, "read-only" in rest)


class Disks:
    """Looks at the disks of databases; one look serves for ten seconds. It neither wakes a database nor is it use."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._looks: dict[str, tuple[float, Room | None]] = {}

    async def look(self, record: DatabaseRecord) -> Room | None:
        """What room there is; None where the machine does not run, or does not answer soon."""
        now = time.monotonic()
        self._looks = {name: each for name, each in self._looks.items() if now - each[0] < _FRESH_SECONDS}
        if (fresh := self._looks.get(record.id)) is not None:
            return fresh[1]
        found = await self._ask(record) or await self._stalled(record)
        self._looks[record.id] = now, found
        return found

    async def _ask(self, record: DatabaseRecord) -> Room | None:
        caller = Caller.server(record.workspace)
        with anyio.move_on_after(_LOOK_SECONDS), suppress(PandastackError):
            printed = await self._plane.interior.output(caller, record.id, LOOK, _LOOK_SECONDS, look=True)
            disk = disk_of(printed.decode(errors="replace"))
            return Room(disk.state, disk.used_pct)
        return None  # it does not run, or its guest sends nonsense

    async def _stalled(self, record: DatabaseRecord) -> Room | None:
        latest = await self._plane.events.latest(record.id, _LATEST_EVENTS)
        said = [each.type for each in latest if each.type in _STALLS]
        return Room(DiskState.WAITING) if said[-1:] == [MachineStalled.KIND] else None

    def forget(self, record: DatabaseRecord) -> None:
        """Have the next request look again."""
        self._looks.pop(record.id, None)


def disk_gb(plane: ControlPlane, record: DatabaseRecord) -> int:
    """The GiB of a database's disk, as the record of its machine says."""
    machine = plane.registry.find(record.id)
    found = next((each.size_mb for each in machine.volumes if each.path == DISK), 0) if machine else 0
    return found // _MIB or SIZES[record.size].disk_gb


async def grow_disk(plane: ControlPlane, caller: Caller, machine_id: str, size_gb: int) -> None:
    """Give the disk of a machine ``size_gb`` GiB; one that sleeps is woken. Again is fine: that completes a growth that
    was interrupted. Errors as :meth:`~pandastack.services.sandboxes.own_volumes.OwnVolumes.grow`."""
    await plane.own_volumes.grow(caller, machine_id, DISK, size_gb * _MIB)
