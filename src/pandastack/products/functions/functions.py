"""The functions of workspaces: code that waits, imported, in a snapshot; each call is a machine of its own (0059)."""

from __future__ import annotations

import builtins
import statistics
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.errors import BadRequestError, ConflictError, NotFoundError, PandastackError
from pandastack.model.caller import Caller
from pandastack.products.functions.aliases import Aliases, chosen_version, kept_version
from pandastack.products.functions.calls import ended
from pandastack.products.functions.deploys import Deploys
from pandastack.products.functions.grants import check_grants
from pandastack.products.functions.http import Reply, answered
from pandastack.products.functions.lambda_url import HttpRequest
from pandastack.products.functions.machines import Machines
from pandastack.products.functions.records import Function, Records, code_directory
from pandastack.products.functions.runs import MOST_LISTED, Runs
from pandastack.products.functions.spec import (
    PLAIN,
    SERVING,
    Background,
    Chosen,
    GivenRun,
    NewFunction,
    ScheduledCall,
    checked_entrypoint,
    checked_values,
)
from pandastack.products.functions.warmth import Warmth
from pandastack.services import ControlPlane
from pandastack.store import functions as table
from pandastack.store.functions import FunctionRecord, FunctionState, RunRecord, RunStatus, VersionRecord

log = structlog.get_logger(__name__)

Hook = Callable[[FunctionRecord], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers of the runs of the last hours; times in milliseconds. ``cold_start_rate`` is the share of runs whose
    machine was restored for them, since none was waiting."""

    hours: int
    total: int
    errors: int
    error_rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cold_start_rate: float


class Functions:
    """Every look-up names a workspace; functions of others are not found."""

    def __init__(self, plane: ControlPlane, tasks: TaskGroup, directory: Path | None) -> None:
        self._plane = plane
        self._tasks = tasks
        self._records = Records(plane, directory)
        self._machines = Machines(plane, tasks)
        self._deploys = Deploys(plane, self._records, self._machines)
        self._warmth = Warmth(plane, tasks)
        self._runs = Runs(plane, self._records, self._machines, self._warmth, tasks)
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._hooks: list[Hook] = []
        self.aliases = Aliases(plane, self._records, self._locks)

    def on_delete(self, hook: Hook) -> None:
        """Have ``hook`` called before a function is deleted, perhaps twice: for what belongs to it elsewhere."""
        self._hooks.append(hook)

    async def recover(self) -> None:
        """End what an earlier server left: runs, machines, half-made versions; and finish its deletions."""
        records = await self._records.load()
        await self._runs.recover()
        self._machines.end_all()
        await self._deploys.reconcile()
        for record in records:
            if record.state is FunctionState.DELETING:
                self._tasks.start_soon(self._delete_later, record)

    async def create(self, caller: Caller, wanted: NewFunction) -> Function:
        """Make a function, and deploy its code if there is any. A deploy that fails leaves nothing.

        Raises :class:`ConflictError` for a name that is taken, :class:`BadRequestError` for a secret or service that is
        not there, and what a deploy raises.
        """
        await check_grants(self._plane, caller, {"secrets": wanted.secrets, "network": wanted.network})
        now = time.time()
        record = FunctionRecord(
            id=wanted.id or str(uuid.uuid4()),
            workspace=caller.workspace,
            name=wanted.name,
            runtime=wanted.runtime,
            entrypoint=wanted.entrypoint,
            template=wanted.template,
            public=wanted.public,
            timeout_seconds=wanted.timeout_seconds,
            memory_mb=wanted.memory_mb,
            concurrency=wanted.concurrency,
            secrets=wanted.secrets,
            network=wanted.network,
            created_at=now,
            updated_at=now,
        )
        await self._records.add(record, wanted.env)
        if wanted.code is None:
            return self._records.seen(record)
        try:
            return await self.deploy(caller, record.id, wanted.code, None)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._records.remove(record)
            raise

    def list(self, caller: Caller, name: str | None = None) -> builtins.list[Function]:
        """The workspace's functions, newest first; ``name``: only the one with that name."""
        return [self._records.seen(each) for each in self._records.of(caller) if name in (None, each.name)]

    def get(self, caller: Caller, function_id: str) -> Function:
        """One function. Raises :class:`NotFoundError`."""
        return self._records.seen(self._records.find(caller, function_id))

    def versions(self, caller: Caller, function_id: str) -> builtins.list[VersionRecord]:
        """The versions that are kept, newest first."""
        return self._records.versions(self._records.find(caller, function_id))

    async def update(self, caller: Caller, function_id: str, given: Mapping[str, Any]) -> Function:
        """Change fields. ``entrypoint``, ``template`` and ``memory_mb`` hold from the next deploy on, the others from
        the next run on."""
        record = self._records.find(caller, function_id)
        values = checked_values(given, record.runtime)
        await check_grants(self._plane, caller, values)
        env = values.pop("env", None)
        if values:
            record = await self._records.change(record, **values, updated_at=time.time())
        if env is not None:
            await self._records.keep_env(record, env)
        return self._records.seen(record)

    async def deploy(self, caller: Caller, function_id: str, data: bytes, entrypoint: str | None) -> Function:
        """Make a version of what was given, and have it serve. After an error the former one serves on.

        Raises :class:`BadRequestError` with what was printed, for code that cannot be unpacked, installed or imported;
        :class:`CapacityError`.
        """
        record = self._records.find(caller, function_id)
        if not data:
            raise BadRequestError("bundle: is empty", field="bundle", hint="a tar archive, or the source itself")
        chosen = checked_entrypoint(entrypoint, record.runtime) if entrypoint else record.entrypoint
        async with self._locks[record.id]:
            record = self._records.find(caller, function_id)
            try:
                record = await self._deploys.deploy(record, data, chosen)
            except BadRequestError as error:
                if error.field != "template":
                    raise
                hint = f"the operator makes it: pandastack template build {record.template}"
                raise BadRequestError(error.message, field="template", hint=hint) from error
            if chosen != record.entrypoint:
                record = await self._records.change(record, entrypoint=chosen)
            self._keep_warm(record)
        return self._records.seen(record)

    async def rollback(self, caller: Caller, function_id: str, version: int | None) -> Function:
        """Have an earlier version serve; None: the one before. Raises :class:`NotFoundError` when it is not kept."""
        async with self._locks[self._records.find(caller, function_id).id]:
            record = self._records.find(caller, function_id)
            kept = [each.version for each in self._records.versions(record)]
            chosen = version if version is not None else next((each for each in kept if each < record.version), 0)
            kept_version(self._records, record, chosen)
            record = await self._records.change(record, version=chosen, updated_at=time.time())
            self._keep_warm(record)
        return self._records.seen(record)

    async def delete(self, caller: Caller, function_id: str) -> None:
        """Delete a function with its versions and runs. Raises :class:`NotFoundError`."""
        record = self._records.find(caller, function_id)
        with anyio.CancelScope(shield=True):
            record = await self._records.change(record, state=FunctionState.DELETING)
            try:
                await self._delete(record)
            except PandastackError:
                self._tasks.start_soon(self._delete_later, record)
                raise

    async def code(self, caller: Caller, function_id: str) -> bytes:
        """The code that serves, compressed: source, or a tar archive. Raises :class:`NotFoundError` without any."""
        function = self.get(caller, function_id)
        if function.serving is None:
            raise NotFoundError(f"function {function.record.name!r} has no code")
        return await self._records.code(function.serving)

    def pinned(self, caller: Caller, function_id: str, chosen: Chosen) -> Function:
        """The function with the version that a call chooses as the one that serves.

        Raises :class:`BadRequestError` for both names, and :class:`NotFoundError`.
        """
        record = self._records.find(caller, function_id)
        serving = chosen_version(self._records, record, chosen.version, chosen.alias)
        return replace(self._records.seen(record), serving=serving)

    async def invoke(self, caller: Caller, function_id: str, event: Any, chosen: Chosen = SERVING) -> RunRecord:
        """Run the function, and return the run once it has ended, however it ended.

        Raises what :meth:`pinned` does, :class:`ConflictError` without code, :class:`QuotaError` when too many machines
        are kept, :class:`RateLimitError`, :class:`TooLargeError`, and :class:`CapacityError` when there was no machine
        for it.
        """
        function = self.pinned(caller, function_id, chosen)
        return await ended(await self._runs.begin(function, event, keep_seconds=chosen.keep_seconds))

    async def start(
        self, caller: Caller, function_id: str, event: Any, chosen: Chosen = SERVING, wanted: Background = PLAIN
    ) -> RunRecord:
        """Begin a run, and return it as it begins. The same errors, and :class:`BadRequestError` for a callback that
        may not be reached."""
        function = self.pinned(caller, function_id, chosen)
        if wanted.callback is not None:
            await self._plane.webhooks.check_callback(wanted.callback)
            await self._plane.webhooks.callbacks(caller.workspace, function.record.id)
        call = await self._runs.begin(function, event, keep_seconds=chosen.keep_seconds, background=wanted)
        return call.record

    async def callback_secret(self, caller: Caller, function_id: str) -> str:
        """What callbacks of a function are signed with. Raises :class:`NotFoundError`."""
        record = self._records.find(caller, function_id)
        return (await self._plane.webhooks.callbacks(record.workspace, record.id)).secret

    def version(self, caller: Caller, function_id: str) -> int:
        """The version that serves. Raises :class:`NotFoundError`, and :class:`ConflictError` when there is none."""
        function = self.get(caller, function_id)
        if function.serving is None:
            raise ConflictError(f"function {function.record.name!r} is not ready: it has no code")
        return function.serving.version

    async def start_scheduled(self, caller: Caller, wanted: ScheduledCall) -> RunRecord:
        """Begin a run of a schedule, or return the one of that id: it is begun once, whatever restarts. Its event names
        the schedule and the time. The errors of :meth:`invoke`; :class:`ConflictError` for a version that is gone."""
        async with self._plane.store.read() as connection:
            found = await table.get_run(connection, wanted.run_id)
        if found is not None:
            return found
        function = self.get(caller, wanted.function_id)
        versions = {each.version: each for each in self._records.versions(function.record)}
        if wanted.version not in versions:
            raise ConflictError(f"version {wanted.version} of function {function.record.name!r} is not kept any more")
        event = {"schedule_id": wanted.schedule_id, "nominal_at": wanted.nominal_at}
        pinned = replace(function, serving=versions[wanted.version])
        return (await self._runs.begin(pinned, event, scheduled=wanted)).record

    async def wait_ended(self, run_id: str) -> RunRecord:
        """The run once it has ended. Raises :class:`NotFoundError`."""
        if (call := self._runs.running(run_id)) is not None:
            await call.done.wait()
            return call.record
        async with self._plane.store.read() as connection:
            found = await table.get_run(connection, run_id)
        if found is None:
            raise NotFoundError(f"run not found: {run_id[:64]}")
        return found

    def http(self, function_id: str, request: HttpRequest) -> AbstractAsyncContextManager[Reply]:
        """Answer a request of HTTP that needs no token: :func:`~pandastack.products.functions.http.answered`."""
        return answered(self._records, self._runs, function_id, request)

    async def add_run(self, caller: Caller, function_id: str, given: GivenRun) -> RunRecord:
        """Store the record of a run that a client made itself."""
        return await self._runs.add(self._records.find(caller, function_id), given)

    async def runs(self, caller: Caller, function_id: str, schedule_id: str | None = None) -> builtins.list[RunRecord]:
        """The last 50 runs, newest first; ``schedule_id``: those of one schedule."""
        record = self._records.find(caller, function_id)
        async with self._plane.store.read() as connection:
            return await table.runs_of(connection, record.id, MOST_LISTED, schedule_id)

    async def run(self, caller: Caller, function_id: str, run_id: str) -> RunRecord:
        """One run. Raises :class:`NotFoundError`."""
        record = self._records.find(caller, function_id)
        async with self._plane.store.read() as connection:
            found = await table.get_run(connection, run_id)
        if found is None or found.function_id != record.id:
            raise NotFoundError(f"run not found: {run_id[:64]}", hint=f"GET /v1/functions/{record.id}/runs lists them")
        return found

    async def metrics(self, caller: Caller, function_id: str, hours: int) -> Metrics:
        """Numbers of the runs of the last ``hours``."""
        record = self._records.find(caller, function_id)
        async with self._plane.store.read() as connection:
            numbers = await table.numbers_of(connection, record.id, time.time() - hours * 3600)
        return metrics_of(numbers, hours)

    def _keep_warm(self, record: FunctionRecord) -> None:
        if (serving := self._records.version(record, record.version)) is not None:
            self._warmth.keep(record.workspace, serving)

    async def _delete(self, record: FunctionRecord) -> None:
        for hook in self._hooks:
            await hook(record)
        async with self._locks[record.id]:
            await self._runs.stop(record.id)
            for each in self._records.versions(record):
                await self._deploys.delete(record, each)
            await self._plane.webhooks.end_callbacks(record.id)
            await self._records.remove(record)
        self._locks.pop(record.id, None)

    async def _delete_later(self, record: FunctionRecord) -> None:
        """Finish a deletion, however often the engine refuses."""
        while True:
            try:
                await self._delete(record)
                return
            except Exception as error:
                log.warning("function.stays", function_id=record.id, cause=repr(error))
            await anyio.sleep(self._plane.settings.reaper_interval_seconds)


def metrics_of(numbers: builtins.list[tuple[RunStatus, float | None, str | None]], hours: int) -> Metrics:
    """Numbers of runs: their statuses, milliseconds and starts. Pure."""
    ended = [each for each in numbers if each[0] is not RunStatus.RUNNING]
    times = sorted(ms for _, ms, _ in ended if ms is not None)
    started = [start for _, _, start in ended if start is not None]
    errors = sum(status is not RunStatus.SUCCESS for status, _, _ in ended)
    shares = statistics.quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99 or [0.0] * 99
    return Metrics(
        hours=hours,
        total=len(numbers),
        errors=errors,
        error_rate=round(errors / len(ended), 4) if ended else 0.0,
        p50_ms=round(shares[49], 1),
        p95_ms=round(shares[94], 1),
        p99_ms=round(shares[98], 1),
        cold_start_rate=round(sum(each != "waiting" for each in started) / len(started), 4) if started else 0.0,
    )


@asynccontextmanager
async def open_functions(plane: ControlPlane, database_url: str) -> AsyncIterator[Functions]:
    """The functions of a control plane, as long as the block. Runs that are in progress then have failed."""
    async with anyio.create_task_group() as tasks:
        functions = Functions(plane, tasks, code_directory(plane.settings.functions_dir, database_url))
        await functions.recover()
        yield functions
        tasks.cancel_scope.cancel()
