"""Databases as their owners see them: what the record, the machine and the gateway say together."""

from __future__ import annotations

from pandastack.products.databases.archive.archive import Backups
from pandastack.products.databases.disk import disk_gb
from pandastack.products.databases.faults import GONE
from pandastack.products.databases.records import Database
from pandastack.services import ControlPlane
from pandastack.store.databases import DatabaseRecord, DatabaseState
from pandastack.store.sandboxes import Status

WAKING = "waking"


def seen(plane: ControlPlane, record: DatabaseRecord, door: int | None, backups: Backups | None) -> Database:
    """A database without its password. ``door``: where the gateway listens for clients, once it does."""
    status, error = _status(plane, record, door)
    suffix = plane.settings.preview_host_suffix.partition(",")[0].strip()
    return Database(record, status, f"{record.id}.{suffix}", door, disk_gb(plane, record), error, backups=backups)


def awake(plane: ControlPlane, record: DatabaseRecord) -> tuple[int, int | None]:
    """Whole seconds without use, and how many more until it sleeps; None: it does not sleep."""
    limit, idle = plane.settings.idle_after, int(plane.activity.idle_seconds(record.id))
    return idle, None if record.always_on or not limit else max(0, int(limit) - idle)


def _status(plane: ControlPlane, record: DatabaseRecord, door: int | None) -> tuple[str, str | None]:
    if record.state is not DatabaseState.READY:
        return record.state, record.error
    machine = plane.registry.find(record.id)
    if machine is None:
        return Status.FAILED, GONE
    if machine.status is Status.HIBERNATED and plane.lifecycle.is_in_transition(record.id):
        return WAKING, None
    if machine.status is Status.RUNNING and door is None:
        return WAKING, None  # for clients it does not run until the gateway answers them
    return machine.status, machine.reason
