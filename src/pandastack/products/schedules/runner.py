"""What schedules start: functions, as far as schedules need to know them. The functions product implements this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pandastack.store.schedules import RunStatus


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """A run of a function for one time of a schedule. ``version`` is that of the function at that time."""

    id: str
    workspace: str
    function_id: str
    schedule_id: str
    nominal_at: float
    version: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: ``success``, ``error`` or ``timeout``."""

    status: RunStatus
    reason: str | None = None


class Runner(Protocol):
    """Runs functions."""

    async def version(self, workspace: str, function_id: str) -> int:
        """The version of a function that serves now. Raises :class:`NotFoundError` for a function that the workspace
        does not have, :class:`ConflictError` for one that has none."""
        ...

    async def start(self, run: ScheduledRun) -> None:
        """Begin a run. One whose id was begun before, by this server or an earlier one, is not begun again."""
        ...

    async def wait(self, workspace: str, run_id: str) -> Outcome:
        """How a run that was started has ended, as soon as it has. Raises :class:`NotFoundError`."""
        ...
