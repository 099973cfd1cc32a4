"""Runs: a machine is restored from a version, gets one message, answers, and ends. Each is recorded."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import replace
from typing import Any

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskGroup
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.errors import ConflictError, PandastackError, RateLimitError, TooLargeError
from pandastack.model.webhooks import Occurrence
from pandastack.products.functions.attempts import Attempts, request_of
from pandastack.products.functions.calls import LEFT, Call
from pandastack.products.functions.grants import run_network
from pandastack.products.functions.kept import Kept
from pandastack.products.functions.later import Later, called_back
from pandastack.products.functions.machines import Machines
from pandastack.products.functions.records import Function, Records
from pandastack.products.functions.retries import Outcome, is_repeated, outcome_of
from pandastack.products.functions.spec import MOST_EVENT, PLAIN, Background, GivenRun, ScheduledCall
from pandastack.products.functions.streams import Stream
from pandastack.products.functions.warmth import Warmth
from pandastack.services import ControlPlane
from pandastack.store import functions as table
from pandastack.store.functions import FunctionRecord, RunRecord, RunStatus

MOST_LISTED = 50
INTERRUPTED = "the server ended during the run"
MOST_WAITING = 1000
"""Runs of a workspace that may be tried again, at once."""
_MOST_STORED_RESULT = 256 * 1024
_PRUNE_EVERY = 50
_FULL_SECONDS = 1.0
"""How long an attempt waits that finds as many runs as there may be."""

log = structlog.get_logger(__name__)


class Runs:
    """The runs of all functions."""

    def __init__(
        self, plane: ControlPlane, records: Records, machines: Machines, warmth: Warmth, tasks: TaskGroup
    ) -> None:
        self._plane = plane
        self._later = Later(plane, records)
        self._machines = machines
        self._warmth = warmth
        self._tasks = tasks
        self._tries = Attempts(plane)
        self._kept = Kept(plane)
        self._calls: dict[str, Call] = {}
        self._begun = 0

    async def recover(self) -> None:
        """End the runs that an earlier server left, but for those that are to be tried again."""
        async with self._plane.store.read() as connection:
            left = await table.left_runs(connection)
        lost = [each.id for each in left if not await self._take_over(each)]
        async with self._plane.store.write() as connection:
            ended = await table.end_runs(connection, lost, INTERRUPTED, time.time())
            woken = [name for each in ended for name in await self._tell(connection, each)]
        self._plane.outbox.announce(woken)

    async def _take_over(self, run: RunRecord) -> bool:
        """Have a run that an earlier server left wait for its next attempt; False when there is none."""
        is_waiting = run.next_attempt_at is not None
        function = self._later.find(run)
        again = is_waiting or is_repeated(Outcome.INTERRUPTED, run.attempt, run.retries)
        if not again or function is None or function.serving is None:
            return False
        if not is_waiting:
            run = await self._later.note(run, {"status": RunStatus.ERROR, "error": INTERRUPTED}, time.time())
        call = Call(run, function.serving, {}, function.record.timeout_seconds, is_waiting=True)
        self._calls[run.id] = call
        self._tasks.start_soon(self._carry_out, call)
        return True

    async def begin(
        self,
        function: Function,
        event: Any,
        *,
        body: str | None = None,
        scheduled: ScheduledCall | None = None,
        stream: Stream | None = None,
        background: Background = PLAIN,
        keep_seconds: int = 0,
    ) -> Call:
        """Begin a run. ``body`` is the input of a script, if it is not the event; with a ``stream`` the function may
        answer in pieces; ``background`` is for one that nobody waits for; ``keep_seconds`` is how long its machine is
        kept if it fails.

        Raises :class:`ConflictError` without a version, and for a run of a schedule that was begun before;
        :class:`RateLimitError` and :class:`TooLargeError`.
        """
        record, version = function.record, function.serving
        if version is None:
            hint = f"POST /v1/functions/{record.id}/deploy deploys code"
            raise ConflictError(f"function {record.name!r} is not ready: it has no code", hint=hint)
        text = json.dumps(event)
        if len(text) > MOST_EVENT:
            raise TooLargeError(f"input: over {MOST_EVENT} bytes", field="input")
        self._kept.admit(record.workspace, keep_seconds)
        self._admit(record)
        if background.retries:
            self._admit_repeated(record.workspace)
        run = RunRecord(
            id=scheduled.run_id if scheduled else str(uuid.uuid4()),
            workspace=record.workspace,
            function_id=record.id,
            status=RunStatus.RUNNING,
            started_at=time.time(),
            version=version.version,
            schedule_id=scheduled.schedule_id if scheduled else None,
            nominal_at=scheduled.nominal_at if scheduled else None,
            sandbox_id=str(uuid.uuid4()),
            retries=background.retries,
            callback=background.callback,
        )
        call = Call(run, version, {}, record.timeout_seconds, keep_seconds=keep_seconds, stream=stream)
        call.request = request_of(function, call, event, body)
        call.network = run_network(record.network, version.network, record.secrets)
        self._calls[run.id] = call
        try:
            async with self._plane.store.write() as connection:
                await _add(connection, run)
                if run.retries:
                    await table.add_event(connection, run.id, text)
        except BaseException:
            del self._calls[run.id]
            raise
        self._tasks.start_soon(self._carry_out, call)
        return call

    async def add(self, record: FunctionRecord, given: GivenRun) -> RunRecord:
        """Store the record of a run that a client made itself."""
        now = time.time()
        ended = None if given.status is RunStatus.RUNNING else now
        run = RunRecord(
            id=str(uuid.uuid4()),
            workspace=record.workspace,
            function_id=record.id,
            status=given.status,
            started_at=now - min(max(given.duration_ms or 0.0, 0.0), 1e9) / 1000,
            version=record.version or None,
            schedule_id=given.schedule_id,
            sandbox_id=given.sandbox_id,
            exit_code=given.exit_code,
            stdout=given.stdout,
            stderr=given.stderr,
            duration_ms=given.duration_ms,
            ended_at=ended,
        )
        async with self._plane.store.write() as connection:
            await table.add_run(connection, run)
        await self._prune(record.id)
        return run

    async def stop(self, function_id: str) -> None:
        """End the runs of a function."""
        calls = [each for each in self._calls.values() if each.record.function_id == function_id]
        for each in calls:
            each.scope.cancel()
        for each in calls:
            await each.done.wait()

    def leave(self, call: Call) -> None:
        """End a run whose client has left; one that has ended stays as it is."""
        if not call.done.is_set():
            call.ended_by = LEFT
            call.scope.cancel()

    def running(self, run_id: str) -> Call | None:
        """The run in progress, or None."""
        return self._calls.get(run_id)

    def _admit(self, record: FunctionRecord) -> None:
        active = [each.record for each in self._calls.values() if not each.is_waiting]
        mine = [each for each in active if each.workspace == record.workspace]
        if sum(each.function_id == record.id for each in mine) >= record.concurrency:
            hint = "try again, or raise the function's `concurrency`"
            raise RateLimitError(f"function {record.name!r} already has {record.concurrency} runs", hint=hint)
        if len(mine) >= (most := self._plane.settings.max_function_runs):
            hint = "try again, or ask the operator to raise PANDASTACK_MAX_FUNCTION_RUNS"
            raise RateLimitError(f"the workspace already has {most} runs", hint=hint)

    def _admit_repeated(self, workspace: str) -> None:
        mine = [each.record for each in self._calls.values() if each.record.workspace == workspace]
        if sum(each.retries > 0 for each in mine) >= MOST_WAITING:
            raise RateLimitError(f"the workspace already has {MOST_WAITING} runs with retries", hint="try again later")

    async def _carry_out(self, call: Call) -> None:
        values: dict[str, Any] = {}
        try:
            with call.scope:
                values = await self._attempts(call)
        except Exception as error:  # one that nobody expected ends one run, not the server
            log.error("function.run_broken", run_id=call.record.id, exc_info=error)
            values = {"status": RunStatus.ERROR, "error": "the server failed as it worked on the run"}
        finally:
            if call.stream is not None:
                call.stream.end()
        if not values:
            values = {"status": RunStatus.ERROR, "error": call.ended_by}
        if call.stream is not None and (streamed := call.stream.result()) is not None:
            values["result"] = streamed
        now = time.time()
        values = {"duration_ms": round((now - call.record.started_at) * 1000, 1), **values, "ended_at": now}
        values |= {"start": call.start, "next_attempt_at": None}
        with anyio.CancelScope(shield=True):
            await self._end(call, values)

    async def _end(self, call: Call, values: dict[str, Any]) -> None:
        """Store the outcome, have the answer go out, and only then end the machine, unless it is kept."""
        run_id = call.record.id
        if call.keep_seconds and values["status"] is not RunStatus.SUCCESS and not call.scope.cancelled_caught:
            values["kept_until"] = await self._kept.keep(call.record, call.keep_seconds)
        try:
            stored = dict(values)
            if len(stored.get("result") or "") > _MOST_STORED_RESULT:
                stored["result"] = None
            async with self._plane.store.write() as connection:
                await table.change_run(connection, run_id, **stored)
                await table.remove_event(connection, run_id)
                woken = await self._tell(connection, replace(call.record, **values))
            self._plane.outbox.announce(woken)
        except PandastackError as error:
            log.error("function.run_not_stored", run_id=run_id, exc_info=error)
        call.record = replace(call.record, **values)
        del self._calls[run_id]
        call.done.set()
        self._end_machine(call)
        self._warmth.keep(call.record.workspace, call.version)
        self._begun += 1
        if self._begun % _PRUNE_EVERY == 0:
            await self._prune(call.record.function_id)

    async def _tell(self, connection: AsyncConnection, run: RunRecord) -> set[str]:
        """Store what webhooks, and the callback, are told of a run that has ended."""
        woken = set(await self._plane.outbox.put(connection, _told(run)))
        if run.callback is not None:
            told = called_back(run, _told(run).data)
            woken |= set(await self._plane.outbox.put_callback(connection, run.function_id, run.callback, told))
        return woken

    async def _attempts(self, call: Call) -> dict[str, Any]:
        """What changes in the record when the run ends, after as many attempts as it takes and may have."""
        while True:
            if call.is_waiting and not await self._next_attempt(call):
                return {"status": RunStatus.ERROR, "error": f"version {call.record.version} is not kept any more"}
            values = await self._tries.outcome(call)
            outcome = outcome_of(values["status"], is_refused=call.failure is not None)
            if not is_repeated(outcome, call.record.attempt, call.record.retries):
                return values
            self._end_machine(call)
            call.record = await self._later.note(call.record, values, time.time())
            call.is_waiting = True

    async def _next_attempt(self, call: Call) -> bool:
        """Wait until the next attempt is due and has a place; False when what it needs is gone."""
        while (left := (call.record.next_attempt_at or 0.0) - time.time()) > 0:  # noqa: ASYNC110  the clock may be set
            await anyio.sleep(min(left, 60))
        while (function := self._later.find(call.record)) is not None:
            try:
                self._admit(function.record)
            except RateLimitError:
                await anyio.sleep(_FULL_SECONDS)
                continue
            call.is_waiting, call.failure, call.start = False, None, None
            call.record, event = await self._later.next(call.record)
            call.request = request_of(function, call, event, None)
            call.network = run_network(function.record.network, call.version.network, function.record.secrets)
            return True
        return False

    def _end_machine(self, call: Call) -> None:
        """End the machine of a run, unless it is kept, and the workspace's by now."""
        machine = self._plane.registry.find(call.record.sandbox_id or "")
        if machine is not None and machine.product is not None:
            self._machines.end(call.record.workspace, call.record.sandbox_id or "")

    async def _prune(self, function_id: str) -> None:
        async with self._plane.store.write() as connection:
            await table.prune_runs(connection, function_id, self._plane.settings.kept_function_runs)


async def _add(connection: AsyncConnection, run: RunRecord) -> None:
    try:
        await table.add_run(connection, run)
    except IntegrityError as error:
        raise ConflictError("the run was begun before") from error


def _told(run: RunRecord) -> Occurrence:
    """What webhooks are told of a run that has ended."""
    data = {
        "id": run.id,
        "function_id": run.function_id,
        "version": run.version,
        "schedule_id": run.schedule_id,
        "status": run.status,
        "error": run.error and run.error[:2000],
    }
    return Occurrence(run.workspace, "run.ended", run.id, data, key="ended")
