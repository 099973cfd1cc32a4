"""Ends the machines of functions, however often the engine refuses."""

from __future__ import annotations

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.errors import NotFoundError, PandastackError
from pandastack.model.caller import Caller
from pandastack.services import ControlPlane

PRODUCT = "function"

log = structlog.get_logger(__name__)


class Machines:
    """Every machine of a function is for one deploy or one run. What another server has left is ended at the start."""

    def __init__(self, plane: ControlPlane, tasks: TaskGroup) -> None:
        self._plane = plane
        self._tasks = tasks

    def end(self, workspace: str, sandbox_id: str) -> None:
        """Have a machine ended, in the background."""
        self._tasks.start_soon(self._end, workspace, sandbox_id)

    def end_all(self) -> None:
        """End those of earlier servers."""
        for record in self._plane.registry.all():
            if record.product == PRODUCT:
                self.end(record.workspace, record.id)

    async def _end(self, workspace: str, sandbox_id: str) -> None:
        while True:
            try:
                await self._plane.sandboxes.delete(Caller.server(workspace), sandbox_id)
            except NotFoundError:
                return
            except PandastackError as error:
                log.warning("function.machine_stays", sandbox_id=sandbox_id, cause=repr(error))
            else:
                return
            await anyio.sleep(self._plane.settings.reaper_interval_seconds)
