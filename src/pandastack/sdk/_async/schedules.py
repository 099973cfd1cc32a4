"""Functions that run at the times of a cron expression."""

from __future__ import annotations

import builtins
from typing import Any, cast

from pandastack.sdk._async.interfaces import AsyncConnection
from pandastack.sdk._schedules import Schedule, ScheduleRun, create_schedule, one_schedule
from pandastack.sdk.wire.call import Call


class AsyncSchedulesAPI:
    """The schedules of the workspace. Each time of one runs its function once, whatever restarts."""

    def __init__(self, client: AsyncConnection) -> None:
        self._client = client

    async def create(
        self,
        name: str,
        function_id: str,
        cron: str,
        *,
        paused: bool | None = None,
        timezone: str | None = None,
        overlap: str | None = None,
        catchup: str | None = None,
        jitter_seconds: int | None = None,
        idempotency_key: str | None = None,
    ) -> Schedule:
        """Have a function run at the times of ``cron`` (five fields) in ``timezone`` (default UTC).

        ``overlap``, while an earlier run has not ended: ``"skip"`` (default), ``"queue"`` or ``"allow"``. ``catchup``,
        for times at which no server ran: ``"none"`` (default), or ``"one"`` run for all of them. Runs begin up to
        ``jitter_seconds`` later. Raises BadRequestError and QuotaError.
        """
        options = {"paused": paused, "timezone": timezone, "overlap": overlap, "catchup": catchup}
        wanted = {"name": name, "function_id": function_id, "cron": cron, "jitter_seconds": jitter_seconds, **options}
        return await self._one(create_schedule(idempotency_key, **wanted))

    async def list(self) -> builtins.list[Schedule]:
        """All schedules, newest first."""
        return [cast(Schedule, each) for each in await self._client.transport.list(Call("GET", "/schedules"))]

    async def get(self, schedule_id: str) -> Schedule:
        """One schedule, with its ``next_runs``. Raises NotFoundError."""
        return await self._one(one_schedule("GET", schedule_id))

    async def update(
        self,
        schedule_id: str,
        *,
        name: str | None = None,
        cron: str | None = None,
        paused: bool | None = None,
        timezone: str | None = None,
        overlap: str | None = None,
        catchup: str | None = None,
        jitter_seconds: int | None = None,
    ) -> Schedule:
        """Change, pause or resume a schedule. A new expression or zone, and the end of a pause, count from now."""
        wanted: dict[str, Any] = {"name": name, "cron": cron, "paused": paused, "timezone": timezone}
        wanted |= {"overlap": overlap, "catchup": catchup, "jitter_seconds": jitter_seconds}
        return await self._one(one_schedule("PATCH", schedule_id, **wanted))

    async def delete(self, schedule_id: str) -> None:
        """Delete a schedule. A run that has begun ends by itself."""
        await self._client.transport.run(one_schedule("DELETE", schedule_id))

    async def trigger(self, schedule_id: str) -> ScheduleRun:
        """Begin a run now, also while it is paused. Raises ConflictError for a function that cannot run."""
        answer = await self._client.transport.object(one_schedule("POST", schedule_id, "/trigger"))
        return cast(ScheduleRun, answer)

    async def runs(self, schedule_id: str) -> builtins.list[ScheduleRun]:
        """What became of the last 50 times, the latest first."""
        found = await self._client.transport.list(one_schedule("GET", schedule_id, "/runs"))
        return [cast(ScheduleRun, each) for each in found]

    async def _one(self, call: Call) -> Schedule:
        return cast(Schedule, await self._client.transport.object(call))
