"""Disks of databases: a volume that the template brings along, which grows while the server writes to it."""

from __future__ import annotations

from pandastack.model.caller import Caller
from pandastack.products.databases.spec import DISK, SIZES
from pandastack.services import ControlPlane
from pandastack.store.databases import DatabaseRecord

_MIB = 1024
"""Of a GiB."""


def disk_gb(plane: ControlPlane, record: DatabaseRecord) -> int:
    """The GiB of a database's disk, as the record of its machine says."""
    machine = plane.registry.find(record.id)
    found = next((each.size_mb for each in machine.volumes if each.path == DISK), 0) if machine else 0
    return found // _MIB or SIZES[record.size].disk_gb


async def grow_disk(plane: ControlPlane, caller: Caller, machine_id: str, size_gb: int) -> None:
    """Give the disk of a machine ``size_gb`` GiB; one that sleeps is woken. Again is fine: that completes a growth that
    was interrupted. Errors as :meth:`~pandastack.services.sandboxes.own_volumes.OwnVolumes.grow`."""
    await plane.own_volumes.grow(caller, machine_id, DISK, size_gb * _MIB)
