"""Runs: a machine is restored from a version, gets one message, answers, and ends. Each is recorded."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskGroup
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.errors import CapacityError, ConflictError, PandastackError, RateLimitError, TooLargeError
from pandastack.model.caller import Caller
from pandastack.model.network import NetworkPolicy
from pandastack.model.network_rules import from_json
from pandastack.model.webhooks import Occurrence
from pandastack.products.functions.grants import run_env, run_network
from pandastack.products.functions.guest import Answer, Ended, Guest
from pandastack.products.functions.kept import Kept
from pandastack.products.functions.machines import PRODUCT, Machines
from pandastack.products.functions.records import Function
from pandastack.products.functions.spec import MOST_EVENT, GivenRun, ScheduledCall
from pandastack.products.functions.warmth import Warmth
from pandastack.services import ControlPlane
from pandastack.services.records.spec import NewSandbox
from pandastack.store import functions as table
from pandastack.store.functions import FunctionRecord, RunRecord, RunStatus, VersionRecord

MOST_LISTED = 50
INTERRUPTED = "the server ended during the run"
_MOST_STORED_RESULT = 256 * 1024
_GRACE_SECONDS = 3.0
"""What a process that has run out of time gets to say where it was."""
_MACHINE_SECONDS = 120
_PRUNE_EVERY = 50

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Call:
    """A run in progress. ``network`` is the policy of its machine, as policies are stored; None: the template's.
    ``start`` tells how its machine came to be. ``answer`` and ``failure`` are there once ``done`` is set: ``failure``
    is a refusal that came before the function began."""

    record: RunRecord
    version: VersionRecord
    request: Mapping[str, Any]
    seconds: float
    network: Mapping[str, Any] | None = None
    done: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    start: str | None = None
    answer: Answer | None = None
    failure: CapacityError | None = None
    keep_seconds: int = 0
    """How long the machine is kept if the run fails."""


class Runs:
    """The runs of all functions."""

    def __init__(self, plane: ControlPlane, machines: Machines, warmth: Warmth, tasks: TaskGroup) -> None:
        self._plane = plane
        self._machines = machines
        self._warmth = warmth
        self._tasks = tasks
        self._guest = Guest(plane)
        self._kept = Kept(plane)
        self._calls: dict[str, Call] = {}
        self._begun = 0

    async def recover(self) -> None:
        """End the runs that an earlier server left."""
        async with self._plane.store.write() as connection:
            ended = await table.end_all_runs(connection, INTERRUPTED, time.time())
            woken = await self._plane.outbox.put(connection, *map(_told, ended))
        self._plane.outbox.announce(woken)

    async def begin(
        self,
        function: Function,
        event: Any,
        *,
        body: str | None = None,
        scheduled: ScheduledCall | None = None,
        keep_seconds: int = 0,
    ) -> Call:
        """Begin a run. ``body`` is the input of a script, if it is not the event; ``keep_seconds`` is how long its
        machine is kept if it fails.

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
        )
        request = {**_request(function, version, run, event, body), "keep": keep_seconds > 0}
        network = run_network(record.network, version.network, record.secrets)
        call = Call(run, version, request, record.timeout_seconds, network, keep_seconds=keep_seconds)
        self._calls[run.id] = call
        try:
            async with self._plane.store.write() as connection:
                await _add(connection, run)
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

    def running(self, run_id: str) -> Call | None:
        """The run in progress, or None."""
        return self._calls.get(run_id)

    def _admit(self, record: FunctionRecord) -> None:
        mine = [each.record for each in self._calls.values() if each.record.workspace == record.workspace]
        if sum(each.function_id == record.id for each in mine) >= record.concurrency:
            hint = "try again, or raise the function's `concurrency`"
            raise RateLimitError(f"function {record.name!r} already has {record.concurrency} runs", hint=hint)
        if len(mine) >= (most := self._plane.settings.max_function_runs):
            hint = "try again, or ask the operator to raise PANDASTACK_MAX_FUNCTION_RUNS"
            raise RateLimitError(f"the workspace already has {most} runs", hint=hint)

    async def _carry_out(self, call: Call) -> None:
        values: dict[str, Any] = {"status": RunStatus.ERROR, "error": "the function was deleted during the run"}
        try:
            with call.scope:
                values = await self._outcome(call)
        except Exception as error:  # one that nobody expected ends one run, not the server
            log.error("function.run_broken", run_id=call.record.id, exc_info=error)
            values = {"status": RunStatus.ERROR, "error": "the server failed as it worked on the run"}
        now = time.time()
        values = {"duration_ms": round((now - call.record.started_at) * 1000, 1), **values, "ended_at": now}
        values["start"] = call.start
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
                await table.end_run(connection, run_id, **stored)
                woken = await self._plane.outbox.put(connection, _told(replace(call.record, **values)))
            self._plane.outbox.announce(woken)
        except PandastackError as error:
            log.error("function.run_not_stored", run_id=run_id, exc_info=error)
        call.record = replace(call.record, **values)
        del self._calls[run_id]
        call.done.set()
        machine = self._plane.registry.find(call.record.sandbox_id or "")
        if machine is not None and machine.product is not None:
            self._machines.end(call.record.workspace, call.record.sandbox_id or "")
        self._warmth.keep(call.record.workspace, call.version)
        self._begun += 1
        if self._begun % _PRUNE_EVERY == 0:
            await self._prune(call.record.function_id)

    async def _outcome(self, call: Call) -> dict[str, Any]:
        """What changes in the record when the run ends."""
        run, caller = call.record, Caller.server(call.record.workspace)
        sandbox_id = run.sandbox_id or ""
        try:
            policy, env = await self._granted(call)
            _, started = await self._plane.sandboxes.create_told(caller, replace(_machine(call), network=policy))
            call.start = "waiting" if started.waited else "restored"
            request = {**call.request, "env": {**env, **call.request["env"]}}
            call.answer = await self._guest.call(caller, sandbox_id, request, call.seconds + _GRACE_SECONDS)
        except CapacityError as error:
            call.failure = error
            return {"status": RunStatus.ERROR, "error": error.message}
        except TimeoutError:
            printed = await self._printed(caller, sandbox_id)
            return {
                "status": RunStatus.TIMEOUT,
                "error": f"timeout after {call.seconds:g} s",
                **printed,
            }
        except Ended:
            printed = await self._printed(caller, sandbox_id)
            error_text = "the function's process ended: by os._exit, a signal, or for lack of memory"
            return {"status": RunStatus.ERROR, "error": error_text, **printed}
        except PandastackError as error:
            log.warning("function.run_failed", run_id=run.id, cause=repr(error))
            return {"status": RunStatus.ERROR, "error": error.public or error.message}
        return _values(call.answer, call.seconds)

    async def _granted(self, call: Call) -> tuple[NetworkPolicy | None, dict[str, str]]:
        """The policy of the machine of a run, and what its secrets put into the environment. Raises
        :class:`BadRequestError` for a secret that is gone."""
        if call.network is None:
            return None, {}
        policy = await anyio.to_thread.run_sync(from_json, call.network)
        return policy, run_env(await self._plane.secrets.granted(call.record.workspace, policy.secrets))

    async def _printed(self, caller: Caller, sandbox_id: str) -> dict[str, str]:
        return {name: await self._guest.printed(caller, sandbox_id, name) for name in ("stdout", "stderr")}

    async def _prune(self, function_id: str) -> None:
        async with self._plane.store.write() as connection:
            await table.prune_runs(connection, function_id, self._plane.settings.kept_function_runs)


async def _add(connection: AsyncConnection, run: RunRecord) -> None:
    try:
        await table.add_run(connection, run)
    except IntegrityError as error:
        raise ConflictError("the run was begun before") from error


def _machine(call: Call) -> NewSandbox:
    run = call.record
    return NewSandbox(
        snapshot=call.version.snapshot_id,
        ttl_seconds=_MACHINE_SECONDS,
        max_lifetime_seconds=int(call.seconds) + _MACHINE_SECONDS,
        metadata={PRODUCT: run.function_id, "run": run.id},
        id=run.sandbox_id,
        product=PRODUCT,
    )


def _request(
    function: Function, version: VersionRecord, run: RunRecord, event: Any, body: str | None
) -> dict[str, Any]:
    """The message for the process in the machine."""
    record = function.record
    context = {
        "function_id": record.id,
        "function_name": record.name,
        "version": version.version,
        "run_id": run.id,
        "memory_mb": version.memory_mb,
        "schedule": run.schedule_id and {"id": run.schedule_id, "nominal_at": run.nominal_at},
    }
    request = {
        "event": event,
        "env": dict(function.env),
        "timeout_seconds": record.timeout_seconds,
        "context": context,
    }
    return request if body is None else {**request, "body": body}


def _values(answer: Answer, seconds: float) -> dict[str, Any]:
    error = f"timeout after {seconds:g} s" if answer.status is RunStatus.TIMEOUT else answer.error
    return {
        "status": RunStatus.ERROR if answer.status is RunStatus.RUNNING else answer.status,
        "exit_code": answer.exit_code,
        "stdout": answer.stdout,
        "stderr": answer.stderr,
        "result": answer.result,
        "error": error,
        "traceback": answer.traceback,
        "duration_ms": answer.duration_ms,
        "cpu_seconds": answer.cpu_seconds,
        "peak_memory_mb": answer.peak_memory_mb,
    }


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
