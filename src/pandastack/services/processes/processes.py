"""Processes: commands that run whether or not a client is attached, as the guest records them (docs/design/0012)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio

from pandastack.cluster import Engines
from pandastack.contract.processes import Extent, ProcessList, ProcessRecord, ProcessSpec
from pandastack.contract.records import Record
from pandastack.errors import NotFoundError, QuotaError
from pandastack.model.caller import Caller
from pandastack.services.processes.idle_watch import IdleWatch
from pandastack.services.processes.quota import StreamQuota
from pandastack.services.processes.spec import checked_signal, checked_size, planned_process
from pandastack.services.records.activity import Activity
from pandastack.services.records.memory import ended_with_memory
from pandastack.services.records.registry import Registry
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.services.settings import Settings
from pandastack.store.sandboxes import SandboxRecord, Status

LONGEST_WAIT_SECONDS = 3600.0


class Processes:
    """Starts processes, and finds the existing ones of a sandbox."""

    def __init__(
        self,
        registry: Registry,
        sandboxes: Sandboxes,
        engines: Engines,
        activity: Activity,
        streams: StreamQuota,
        idle_watch: IdleWatch,
        settings: Settings,
    ) -> None:
        self._registry = registry
        self._sandboxes = sandboxes
        self._engines = engines
        self._activity = activity
        self._streams = streams
        self._idle_watch = idle_watch
        self._settings = settings

    def plan(self, body: Mapping[str, Any]) -> ProcessSpec:
        """Check a caller's request. Raises :class:`BadRequestError` with the field's name."""
        return planned_process(body, self._settings)

    async def start(self, caller: Caller, sandbox_id: str, spec: ProcessSpec) -> ProcessRecord:
        """Start a process and return its record; raises :class:`QuotaError` when the sandbox has too many."""
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            await self._admit(sandbox)
            self._activity.ran(sandbox.id, spec.cmd)
            retained = replace(spec, spool=True, keep_bytes=self._settings.kept_output_bytes)
            try:
                record = await self._engines.of(sandbox).start_process(sandbox.id, retained)
            finally:
                self._activity.done(sandbox.id)  # later activity is not this command's
            if not spec.background:
                self._idle_watch.watch(sandbox, spec.id)
            return record

    async def _admit(self, sandbox: SandboxRecord) -> None:
        found = (await self._engines.of(sandbox).processes(sandbox.id)).processes
        running = sum(each.running for each in found)
        if running >= self._settings.max_processes:
            raise QuotaError(
                f"sandbox {sandbox.id} already runs {running} processes",
                hint="end some, or ask the operator to raise PANDASTACK_MAX_PROCESSES",
            )

    async def check(self, caller: Caller, sandbox_id: str, *, running: bool = False) -> None:
        """Raise when the sandbox does not exist or, with ``running``, when it would have to be woken."""
        record = self._sandboxes.get(caller, sandbox_id)
        if record.status not in ((Status.RUNNING,) if running else (Status.RUNNING, Status.HIBERNATED)):
            raise await self._registry.refusal(record)

    @asynccontextmanager
    async def _use(self, caller: Caller, sandbox_id: str) -> AsyncIterator[SandboxRecord]:
        """Use the sandbox for an operation on a process; one that ended with the memory is told as such."""
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            try:
                yield sandbox
            except NotFoundError as error:
                if sandbox.memory_lost_at is None:
                    raise
                raise NotFoundError(error.message, field=error.field, hint=ended_with_memory(sandbox)) from error

    async def list(self, caller: Caller, sandbox_id: str) -> ProcessList:
        """All records, oldest first, and how many the guest retains."""
        async with self._use(caller, sandbox_id) as sandbox:
            return await self._engines.of(sandbox).processes(sandbox.id)

    async def get(self, caller: Caller, sandbox_id: str, process: str) -> ProcessRecord:
        """One record, by id or pid."""
        async with self._use(caller, sandbox_id) as sandbox:
            return await self._engines.of(sandbox).process(sandbox.id, process)

    @asynccontextmanager
    async def view(
        self,
        caller: Caller,
        sandbox_id: str,
        process: str,
        *,
        stdout: int | None = None,
        stderr: int | None = None,
        follow: bool = True,
    ) -> AsyncIterator[AsyncIterator[Record]]:
        """Output from these offsets on; a negative offset counts from the end. The process outlives the block."""
        async with self._use(caller, sandbox_id) as sandbox:
            if (stdout or 0) < 0 or (stderr or 0) < 0:
                record = await self._engines.of(sandbox).process(sandbox.id, process)
                stdout, stderr = _from_end(record.stdout, stdout), _from_end(record.stderr, stderr)
            with self._streams.hold(sandbox.id):
                engine = self._engines.of(sandbox)
                view = engine.attach(sandbox.id, process, stdout=stdout, stderr=stderr, follow=follow)
                async with view as records:
                    yield records

    async def wait(self, caller: Caller, sandbox_id: str, process: str, seconds: float) -> ProcessRecord:
        """The record once the process has ended, or its state after ``seconds``."""
        with anyio.move_on_after(seconds):
            async with self.view(caller, sandbox_id, process) as records:
                async for _ in records:
                    pass
        return await self.get(caller, sandbox_id, process)

    async def send_input(
        self, caller: Caller, sandbox_id: str, process: str, data: bytes | AsyncIterator[bytes], *, close: bool
    ) -> int:
        """Write to the standard input; returns the number of bytes accepted."""
        async with self._use(caller, sandbox_id) as sandbox:
            with self._streams.hold(sandbox.id):
                return await self._engines.of(sandbox).send_input(sandbox.id, process, data, close)

    async def signal(self, caller: Caller, sandbox_id: str, process: str, signal: int | str) -> None:
        """Send a signal, by number or name, to the process's group."""
        number = checked_signal(signal)
        async with self._use(caller, sandbox_id) as sandbox:
            await self._engines.of(sandbox).signal(sandbox.id, process, number)

    async def resize(self, caller: Caller, sandbox_id: str, process: str, rows: int, cols: int) -> None:
        """Resize the process's terminal."""
        await self.check(caller, sandbox_id)
        size = checked_size(rows, cols)
        async with self._use(caller, sandbox_id) as sandbox:
            await self._engines.of(sandbox).resize(sandbox.id, process, size)


def _from_end(kept: Extent, offset: int | None) -> int | None:
    if offset is None or offset >= 0:
        return offset
    return max(kept.base, kept.end + offset)
