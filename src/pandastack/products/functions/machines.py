"""Makes the machines of deploys, and ends those of functions, however often the engine refuses."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.errors import CapacityError, NotFoundError, PandastackError
from pandastack.model.caller import Caller
from pandastack.services import ControlPlane
from pandastack.services.records.spec import NewSandbox

PRODUCT = "function"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0

log = structlog.get_logger(__name__)


class Machines:
    """Every machine of a function is for one deploy or one run. What another server has left is ended at the start."""

    def __init__(self, plane: ControlPlane, tasks: TaskGroup) -> None:
        self._plane = plane
        self._tasks = tasks

    @asynccontextmanager
    async def made(self, workspace: str, wanted: NewSandbox, patience: float = 0.0) -> AsyncIterator[str]:
        """A machine as ``wanted`` for the block, by the id of its sandbox; it is ended afterwards, in the background.
        On a host without room it is tried for ``patience`` seconds. Raises what a create does."""
        sandbox_id, late, pause = str(uuid.uuid4()), anyio.current_time() + patience, _FIRST_PAUSE
        while True:
            try:
                await self._plane.sandboxes.create(
                    Caller.server(workspace), replace(wanted, id=sandbox_id, product=PRODUCT)
                )
                break
            except CapacityError:
                if anyio.current_time() >= late:
                    raise
            await anyio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        try:
            yield sandbox_id
        finally:
            self.end(workspace, sandbox_id)

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
