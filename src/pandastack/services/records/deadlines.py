"""When an unused sandbox is hibernated or deleted."""

from __future__ import annotations

from pandastack.services.records.activity import Activity
from pandastack.services.records.spec import HIBERNATE
from pandastack.services.settings import Settings
from pandastack.store.sandboxes import SandboxRecord, Status


class Deadlines:
    """Computes when sandboxes are due. Times are epoch seconds; each use of a sandbox moves them."""

    def __init__(self, activity: Activity, settings: Settings) -> None:
        self._activity = activity
        self._settings = settings

    def of(self, record: SandboxRecord) -> float | None:
        """When the sandbox is due for deletion or hibernation; None: never."""
        if record.persistent and record.status == Status.RUNNING and self._settings.idle_after:
            return self._activity.last_active(record.id) + self._settings.idle_after
        return self.expires_at(record)

    def expires_at(self, record: SandboxRecord) -> float | None:
        """When the idle limit set by its owner expires; None: it does not apply."""
        if record.persistent or record.status in (Status.CREATING, Status.STOPPING):
            return None
        if (
            record.status in (Status.HIBERNATED, Status.FAILED) and record.on_expire == HIBERNATE
        ):  # it stays, and can be woken
            return None
        return self._activity.last_active(record.id) + (record.ttl_seconds or self._settings.reaper_interval_seconds)

    @staticmethod
    def only_hibernates(record: SandboxRecord) -> bool:
        """Whether the sandbox is hibernated, not deleted, when its time is over."""
        return record.status in (Status.RUNNING, Status.PAUSED) and (record.persistent or record.on_expire == HIBERNATE)
