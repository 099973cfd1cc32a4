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
        if record.persistent and record.status == Status.RUNNING and self._settings.idle_after and not record.always_on:
            idle = self._activity.last_active(record.id) + self._settings.idle_after
            return _earliest(idle, self.ends_at(record))
        return self.expires_at(record)

    def expires_at(self, record: SandboxRecord) -> float | None:
        """When it ends unless it is used, or its longest life is over; None: never."""
        return _earliest(self._idle_limit(record), self.ends_at(record))

    @staticmethod
    def ends_at(record: SandboxRecord) -> float | None:
        """When its longest life is over, whether it is in use or not; None: it may live for ever."""
        if record.max_lifetime_seconds is None or record.status in (Status.CREATING, Status.STOPPING):
            return None
        return record.created_at + record.max_lifetime_seconds

    def _idle_limit(self, record: SandboxRecord) -> float | None:
        if record.persistent or record.status in (Status.CREATING, Status.STOPPING):
            return None
        if (
            record.status in (Status.HIBERNATED, Status.FAILED) and record.on_expire == HIBERNATE
        ):  # it stays, and can be woken
            return None
        clock = self._activity.last_active if self.only_hibernates(record) else self._activity.last_attended
        return clock(record.id) + (record.ttl_seconds or self._settings.reaper_interval_seconds)

    @staticmethod
    def only_hibernates(record: SandboxRecord) -> bool:
        """Whether the sandbox is hibernated, not deleted, when its time is over."""
        return record.status in (Status.RUNNING, Status.PAUSED) and (record.persistent or record.on_expire == HIBERNATE)


def _earliest(*times: float | None) -> float | None:
    return min((each for each in times if each is not None), default=None)
