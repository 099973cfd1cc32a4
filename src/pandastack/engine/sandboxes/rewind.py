"""Rewinding: a sandbox returns to the state of a snapshot, under the same id."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio

from pandastack.engine import origins
from pandastack.engine.crash_points import crash_at
from pandastack.engine.machines.freeze import return_to_running
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.machines.state import MachineState
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.origins.origin import Origin
from pandastack.engine.sandboxes.admission import Admission
from pandastack.engine.sandboxes.network import Networks
from pandastack.engine.sandboxes.registry import Registry
from pandastack.engine.sandboxes.sandboxes import Sandboxes
from pandastack.engine.sandboxes.volumes import Volumes
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import ConflictError, NotFoundError, PandastackError


class Rewinder:
    """Rewinds sandboxes that run, are hibernated, have failed, or were lost with a former engine."""

    def __init__(
        self,
        registry: Registry,
        admission: Admission,
        sandboxes: Sandboxes,
        saved: CaptureStore,
        asleep: CaptureStore,
        networks: Networks,
        volumes: Volumes,
    ) -> None:
        self._registry = registry
        self._admission = admission
        self._sandboxes = sandboxes
        self._saved = saved
        self._asleep = asleep
        self._networks = networks
        self._volumes = volumes
        self._unknown = anyio.Lock()
        """Held while an unknown sandbox is restored: it has no lock of its own yet."""

    async def rewind(self, sandbox_id: str, snapshot_id: str) -> Sandbox:
        """The sandbox as it was in the snapshot. Its later state is lost.

        On failure it stays as it was: its machine is paused meanwhile, and is ended only once the new one runs.
        A sandbox that is unknown, because its machine was lost with a former engine, can be rewound only to a snapshot
        of its own.
        """
        origin = self._saved.get(snapshot_id)
        self._admission.check(origin, sandbox_id=sandbox_id)
        with anyio.CancelScope(shield=True):
            async with self._locked(sandbox_id) as sandbox:
                if sandbox is None:
                    rewound = await self._sandboxes.begin(origin, self._spec_of_lost(sandbox_id, snapshot_id))
                else:
                    rewound = await self._rewind(sandbox, origin)
        return rewound

    async def _rewind(self, sandbox: Sandbox | Hibernated, origin: Origin) -> Sandbox:
        _check_volumes(sandbox.spec, origin)
        if isinstance(sandbox, Sandbox) and not sandbox.failure:
            return await self._replace(sandbox, origin)
        rewound = await self._sandboxes.begin(origin, sandbox.spec)
        if isinstance(sandbox, Hibernated):
            await self._asleep.remove_stored(sandbox.id, sandbox.origin)
        return rewound

    @asynccontextmanager
    async def _locked(self, sandbox_id: str) -> AsyncIterator[Sandbox | Hibernated | None]:
        """The sandbox, locked. ``None`` if it is unknown; no other task registers it during the block."""
        sandbox = self._registry.find(sandbox_id)
        async with sandbox.lock if sandbox else self._unknown:
            if self._registry.find(sandbox_id) is not sandbox:
                raise ConflictError(f"sandbox {sandbox_id} was replaced during the operation", hint="try again")
            yield sandbox

    def _spec_of_lost(self, sandbox_id: str, snapshot_id: str) -> SandboxSpec:
        spec = origins.read_spec(self._saved.path(snapshot_id))
        if spec.sandbox != sandbox_id:
            raise NotFoundError(f"sandbox {sandbox_id} not found")
        _check_volumes(spec, self._saved.get(snapshot_id))
        return spec

    async def _replace(self, sandbox: Sandbox, origin: Origin) -> Sandbox:
        try:
            sandbox.journal.advance(MachineState.REWINDING)
            if not sandbox.paused:
                await sandbox.machine.pause()
            rewound = await self._sandboxes.begin(origin, sandbox.spec)
        except BaseException:
            with suppress(PandastackError):
                await self._volumes.settle(sandbox.spec, sandbox.origin.snapshot)
            await return_to_running(sandbox)
            raise
        crash_at("rewound")
        await self._networks.keep_counters(sandbox)
        await sandbox.end()
        await self._forget_disks_of(sandbox)
        return rewound

    async def _forget_disks_of(self, replaced: Sandbox) -> None:
        """The disks of a machine that was lost while its replacement was being restored."""
        kept = self._asleep.get(replaced.id) if self._asleep.has(replaced.id) else None
        if kept is not None and kept.snapshot.manifest.parent == replaced.origin.key:
            await self._asleep.remove_stored(replaced.id, kept)


def _check_volumes(spec: SandboxSpec, origin: Origin) -> None:
    """Raise :class:`ConflictError` when the disks of ``origin`` are not copies of the volumes of the sandbox."""
    mounts = dict(enumerate(origin.snapshot.manifest.mounts))
    if any(mounts.get(each.place) != each.path for each in spec.volumes):
        raise ConflictError(
            "the snapshot has other volumes than the sandbox",
            field="snapshot",
            hint="create a sandbox from the snapshot: it gets copies of them",
        )
