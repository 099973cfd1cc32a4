"""Pausing, hibernating, waking, capturing, forking and rewinding sandboxes.

All of it is two operations on different data: :func:`~pandastack.engine.machines.capture.capture` turns a machine into
an origin, and :meth:`Beginnings.begin` turns an origin into a machine.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import anyio

from pandastack.disks.pool import Pool
from pandastack.engine import origins
from pandastack.engine.crash_points import crash_at
from pandastack.engine.machines.capture import Captured, capture
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.machines.state import MachineState
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.origins.origin import Origin
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import ConflictError, GuestError, NotFoundError, PandastackError
from pandastack.host import facts, files

_UNFINISHED = ".new-"

PAUSE_DEADLINE = 1.0
"""Seconds a guest gets to hold its programs still before its CPUs are stopped. One that does not answer is stopped all
the same."""


class Beginnings(Protocol):
    """What this module needs of the engine."""

    pool: Pool
    saved: CaptureStore
    asleep: CaptureStore

    def find(self, sandbox_id: str) -> Sandbox | Hibernated | None: ...

    def get(self, sandbox_id: str) -> Sandbox | Hibernated: ...

    def reach(self, sandbox_id: str) -> Sandbox: ...

    def admit(self, count: int = 1) -> None: ...

    async def begin(self, origin: Origin, spec: SandboxSpec) -> Sandbox: ...

    def register(self, sandbox: Sandbox | Hibernated) -> None: ...


@dataclass(frozen=True)
class Forked:
    """The children in the order of the request, or why there is none."""

    captured: Captured
    children: list[Sandbox | PandastackError]


class Lifecycle:
    """The operations. Each is shielded: a caller that leaves does not leave half of it behind."""

    def __init__(self, engine: Beginnings) -> None:
        self._engine = engine
        self._unknown = anyio.Lock()
        """Held while a sandbox that is not known is restored: there is nothing of its own to hold."""

    async def pause(self, sandbox_id: str) -> None:
        """Stop the guest's CPUs; what is paused already stays so."""
        sandbox = self._awake(sandbox_id)
        with anyio.CancelScope(shield=True):
            async with sandbox.lock:
                if not sandbox.paused:
                    await _stop(sandbox)
                    sandbox.paused = True
                    sandbox.journal.set_paused(True)

    async def resume(self, sandbox_id: str) -> None:
        """Let the guest go on; what runs already goes on."""
        sandbox = self._awake(sandbox_id)
        with anyio.CancelScope(shield=True):
            async with sandbox.lock:
                if sandbox.paused:
                    await _go_on(sandbox)
                    sandbox.paused = False
                    sandbox.journal.set_paused(False)

    async def hibernate(self, sandbox_id: str) -> Captured | None:
        """Put the sandbox on the disk and end its machine. ``None`` when it is there already.

        On failure, a full disk above all, it runs as before.
        """
        if isinstance(self._engine.get(sandbox_id), Hibernated):
            return None
        sandbox = self._awake(sandbox_id)
        with anyio.CancelScope(shield=True):
            async with sandbox.lock:
                captured = await self._put_to_sleep(sandbox)
                await sandbox.end()
                self._engine.register(Hibernated(sandbox.spec, self._engine.asleep.get(sandbox.id)))
        return captured

    async def _put_to_sleep(self, sandbox: Sandbox) -> Captured:
        try:
            sandbox.journal.advance(MachineState.HIBERNATING)
            async with self._engine.asleep.adding(sandbox.id) as directory:
                captured = await capture(sandbox, directory, end=True)
                origins.write_spec(directory, sandbox.spec)
                crash_at("captured")
        except BaseException:
            await self._as_before(sandbox)
            raise
        crash_at("asleep")
        return captured

    async def _as_before(self, sandbox: Sandbox) -> None:
        """After something failed: as before it began."""
        if not sandbox.paused:
            await _go_on(sandbox)
        with suppress(PandastackError):  # a full disk: what is written there already means the same to the next engine
            sandbox.journal.advance(MachineState.RUNNING)

    async def wake(self, sandbox_id: str) -> Sandbox:
        """The sandbox, running: as it was put to sleep, with a clock that is right."""
        found = self._engine.get(sandbox_id)
        if isinstance(found, Sandbox):
            await self.resume(sandbox_id)
            return self._engine.reach(sandbox_id)
        with anyio.CancelScope(shield=True):
            async with found.lock:
                sandbox = await self._wake(found)
        return sandbox

    async def _wake(self, found: Hibernated) -> Sandbox:
        current = self._engine.get(found.id)
        if isinstance(current, Sandbox):  # another request has woken it
            return current
        self._engine.admit()
        sandbox = await self._engine.begin(found.origin, found.spec)
        crash_at("awake")
        self._engine.asleep.remove(found.id)
        return sandbox

    async def snapshot(self, sandbox_id: str, snapshot_id: str) -> Captured:
        """Keep the sandbox's state under ``snapshot_id``; it goes on running."""
        sandbox = self._engine.reach(sandbox_id)
        if self._engine.saved.has(snapshot_id):
            raise ConflictError(f"snapshot {snapshot_id} exists already", field="id")
        self._engine.admit(0)
        with anyio.CancelScope(shield=True):
            async with sandbox.lock, self._engine.saved.adding(snapshot_id) as directory:
                captured = await capture(sandbox, directory)
                origins.write_spec(directory, sandbox.spec)
                crash_at("captured")
        return captured

    async def fork(self, sandbox_id: str, specs: Sequence[SandboxSpec]) -> Forked:
        """Copies of the sandbox, all of one capture; it goes on running."""
        sandbox = self._engine.reach(sandbox_id)
        self._engine.admit(len(specs))
        # Not on a shelf: the children link what they need, so this is gone when they are there.
        work = self._engine.pool.directory / "saved" / f"{_UNFINISHED}{secrets.token_hex(6)}"
        children: list[Sandbox | PandastackError] = [ConflictError("not started")] * len(specs)
        with anyio.CancelScope(shield=True), files.directory_for_now(work) as directory:
            async with sandbox.lock:
                captured = await capture(sandbox, directory)
            crash_at("captured")
            origin = origins.load(directory)
            limit = anyio.CapacityLimiter(facts.cores())

            async def begin(index: int, spec: SandboxSpec) -> None:
                async with limit:
                    try:
                        children[index] = await self._engine.begin(origin, spec)
                    except PandastackError as error:
                        children[index] = error

            async with anyio.create_task_group() as tasks:
                for index, spec in enumerate(specs):
                    tasks.start_soon(begin, index, spec)
        return Forked(captured, children)

    async def rewind(self, sandbox_id: str, snapshot_id: str) -> Sandbox:
        """The sandbox as it was in the snapshot, under the same id. What it has become since is gone.

        On failure it is as before: its machine stands still, and is ended only when the new one runs.
        A sandbox whose machine was lost with a former engine returns by a snapshot of its own.
        """
        origin = self._engine.saved.get(snapshot_id)
        self._engine.admit()
        with anyio.CancelScope(shield=True):
            async with self._locked(sandbox_id) as sandbox:
                if sandbox is None:
                    rewound = await self._engine.begin(origin, self._lost(sandbox_id, snapshot_id))
                else:
                    rewound = await self._rewind(sandbox, origin)
        return rewound

    @asynccontextmanager
    async def _locked(self, sandbox_id: str) -> AsyncIterator[Sandbox | Hibernated | None]:
        """The sandbox in its turn; None: it is not known, and nobody else makes it known meanwhile."""
        sandbox = self._engine.find(sandbox_id)
        async with sandbox.lock if sandbox else self._unknown:
            if self._engine.find(sandbox_id) is not sandbox:
                raise ConflictError(f"sandbox {sandbox_id} was replaced during the operation", hint="try again")
            yield sandbox

    def _lost(self, sandbox_id: str, snapshot_id: str) -> SandboxSpec:
        spec = origins.read_spec(self._engine.saved.path(snapshot_id))
        if spec.sandbox != sandbox_id:
            raise NotFoundError(f"sandbox {sandbox_id} not found")
        return spec

    async def _rewind(self, sandbox: Sandbox | Hibernated, origin: Origin) -> Sandbox:
        if isinstance(sandbox, Sandbox) and not sandbox.failure:
            return await self._replace(sandbox, origin)
        rewound = await self._engine.begin(origin, sandbox.spec)
        if isinstance(sandbox, Hibernated):
            self._engine.asleep.remove(sandbox.id)
        return rewound

    async def _replace(self, sandbox: Sandbox, origin: Origin) -> Sandbox:
        try:
            sandbox.journal.advance(MachineState.REWINDING)
            if not sandbox.paused:
                await sandbox.machine.pause()
            rewound = await self._engine.begin(origin, sandbox.spec)
        except BaseException:
            await self._as_before(sandbox)
            raise
        crash_at("rewound")
        await sandbox.end()
        return rewound

    def _awake(self, sandbox_id: str) -> Sandbox:
        sandbox = self._engine.get(sandbox_id)
        if isinstance(sandbox, Hibernated):
            raise ConflictError(f"sandbox {sandbox_id} is hibernated", hint="wake it first")
        if sandbox.failure:
            raise ConflictError(f"sandbox {sandbox_id} has failed: {sandbox.failure}", hint="create a new one")
        return sandbox


async def _stop(sandbox: Sandbox) -> None:
    """Programs first, then the CPUs: in a copy that is made now, nothing may run before it knows that it is one."""
    try:
        await sandbox.channel.quiesce(PAUSE_DEADLINE, freeze=True)
    except GuestError:
        sandbox.channel.check()
    try:
        await sandbox.machine.pause()
    except BaseException:
        sandbox.channel.thaw()
        raise


async def _go_on(sandbox: Sandbox) -> None:
    await sandbox.machine.resume()
    sandbox.channel.thaw()
