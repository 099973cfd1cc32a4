"""What schedules run: the functions of this server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pandastack.model.caller import Caller
from pandastack.products.functions import Functions, ScheduledCall
from pandastack.products.schedules import Outcome, ScheduledRun, Schedules, open_schedules
from pandastack.services import ControlPlane
from pandastack.store.functions import FunctionRecord
from pandastack.store.schedules import RunStatus


class ScheduledFunctions:
    """Functions as :class:`~pandastack.products.schedules.Runner` asks for them: products do not know each other."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions

    async def version(self, workspace: str, function_id: str) -> int:
        """The version of a function that serves now."""
        return self._functions.version(Caller.server(workspace), function_id)

    async def start(self, run: ScheduledRun) -> None:
        """Begin a run, once."""
        wanted = ScheduledCall(run.id, run.function_id, run.version, run.schedule_id, run.nominal_at)
        await self._functions.start_scheduled(Caller.server(run.workspace), wanted)

    async def wait(self, workspace: str, run_id: str) -> Outcome:
        """How a run has ended."""
        ended = await self._functions.wait_ended(run_id)
        return Outcome(RunStatus(ended.status.value), ended.error)


@asynccontextmanager
async def open_scheduled(plane: ControlPlane, functions: Functions) -> AsyncIterator[Schedules]:
    """The schedules of a control plane, which run its functions and end with them, as long as the block."""
    async with open_schedules(plane, ScheduledFunctions(functions)) as schedules:

        async def end_schedules(record: FunctionRecord) -> None:
            await schedules.function_deleted(record.workspace, record.id)

        functions.on_delete(end_schedules)
        yield schedules
