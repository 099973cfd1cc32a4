"""Has a machine wait for the next run of a function that is in use, as far as the engine has room for it."""

from __future__ import annotations

import time

import structlog
from anyio.abc import TaskGroup

from pandastack.errors import PandastackError
from pandastack.model.caller import Caller
from pandastack.services import ControlPlane
from pandastack.store.functions import VersionRecord
from pandastack.store.snapshots import FUNCTION

MACHINES = 1
"""So many wait for a function that is called now and then. For one that is called often, the engine has more wait."""

_RENEWED_AFTER = 0.25
"""The share of its time after which a hint is given again."""

log = structlog.get_logger(__name__)


class Warmth:
    """Gives the engine its hints, in the background."""

    def __init__(self, plane: ControlPlane, tasks: TaskGroup) -> None:
        self._plane = plane
        self._tasks = tasks
        self._given: dict[str, float] = {}
        """When the last hint for each snapshot was given, by a steady clock; those that hold."""

    def keep(self, workspace: str, version: VersionRecord) -> None:
        """A run of ``version`` may follow soon: have a machine wait for it."""
        seconds, now = self._plane.settings.function_warm_seconds, time.monotonic()
        if now < self._given.get(version.snapshot_id, float("-inf")) + seconds * _RENEWED_AFTER or not seconds:
            return
        self._given = {each: at for each, at in self._given.items() if now < at + seconds}
        self._given[version.snapshot_id] = now
        self._tasks.start_soon(self._tell, workspace, version.snapshot_id, float(seconds))

    async def _tell(self, workspace: str, snapshot_id: str, seconds: float) -> None:
        try:
            snapshot = await self._plane.snapshots.get(Caller.server(workspace), snapshot_id, FUNCTION)
            await self._plane.snapshots.expect(snapshot, MACHINES, seconds)
        except PandastackError as error:
            log.info("function.not_warm", snapshot_id=snapshot_id, cause=repr(error))
            self._given.pop(snapshot_id, None)
