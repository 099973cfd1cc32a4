"""Later attempts of runs that failed: stored before they are waited for, so that they outlive the server."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import from_json

from pandastack.model.webhooks import Occurrence
from pandastack.products.functions.records import Function, Records
from pandastack.products.functions.retries import plan_pause
from pandastack.services import ControlPlane
from pandastack.store import functions as table
from pandastack.store.functions import FunctionState, RunRecord

_MOST_TOLD = 2000
"""Characters of the error of each attempt."""


class Later:
    """What is between two attempts of a run."""

    def __init__(self, plane: ControlPlane, records: Records) -> None:
        self._plane = plane
        self._records = records

    def find(self, run: RunRecord) -> Function | None:
        """The function, at the version of the run; None when it is deleted, or the version is not kept."""
        record = self._records.get(run.function_id)
        if record is None or record.state is FunctionState.DELETING:
            return None
        version = self._records.version(record, run.version or 0)
        return None if version is None else replace(self._records.seen(record), serving=version)

    async def note(self, run: RunRecord, values: Mapping[str, Any], now: float) -> RunRecord:
        """Store how an attempt has failed, and when the next one is due."""
        chance = random.random()  # no secret
        pause = plan_pause(run.attempt, self._plane.settings.function_retry_seconds, chance)
        failed = {
            "attempt": run.attempt,
            "status": str(values["status"]),
            "error": (values.get("error") or "")[:_MOST_TOLD],
            "sandbox_id": run.sandbox_id,
            "ended_at": now,
        }
        return await self._change(run, attempts=[*(run.attempts or ()), failed], next_attempt_at=now + pause)

    async def next(self, run: RunRecord) -> tuple[RunRecord, Any]:
        """The run as its next attempt begins, and its event."""
        async with self._plane.store.read() as connection:
            event = await table.get_event(connection, run.id)
        begun = await self._change(run, attempt=run.attempt + 1, sandbox_id=str(uuid.uuid4()), next_attempt_at=None)
        return begun, json.loads(event)

    async def _change(self, run: RunRecord, **values: Any) -> RunRecord:
        async with self._plane.store.write() as connection:
            await table.change_run(connection, run.id, **values)
        return replace(run, **values)


def called_back(run: RunRecord, told: Mapping[str, Any]) -> Occurrence:
    """What the callback of a run is told: what webhooks are ``told``, and more, but not what it has printed."""
    data = {
        **told,
        "attempt": run.attempt,
        "exit_code": run.exit_code,
        "result": None if run.result is None else from_json(run.result),
        "duration_ms": run.duration_ms,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
    }
    return Occurrence(run.workspace, "run.ended", run.id, data, key="ended")
