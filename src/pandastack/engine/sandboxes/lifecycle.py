"""Pausing, hibernating and waking sandboxes.

Together with copies and rewinds these are two operations on different data:
:func:`~pandastack.engine.machines.capture.capture` turns a machine into an origin, and
:meth:`~pandastack.engine.sandboxes.sandboxes.Sandboxes.begin` turns an origin into a machine.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import anyio

from pandastack.contract.sandboxes import Captured
from pandastack.engine import origins
from pandastack.engine.crash_points import crash_at
from pandastack.engine.machines.capture import capture
from pandastack.engine.machines.freeze import freeze_and_pause, resume_and_thaw, return_to_running
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.machines.state import MachineState
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.sandboxes.network import Networks
from pandastack.engine.sandboxes.registry import Registry
from pandastack.engine.sandboxes.sandboxes import Sandboxes
from pandastack.engine.sandboxes.volumes import Volumes
from pandastack.errors import PandastackError


class Lifecycle:
    """The operations. Each is shielded: cancelling the caller does not leave it half done."""

    def __init__(
        self, registry: Registry, sandboxes: Sandboxes, asleep: CaptureStore, networks: Networks, volumes: Volumes
    ) -> None:
        self._registry = registry
        self._sandboxes = sandboxes
        self._asleep = asleep
        self._networks = networks
        self._volumes = volumes

    async def pause(self, sandbox_id: str) -> None:
        """Freeze the guest's programs and pause its CPUs. Does nothing to a paused sandbox."""
        sandbox = self._registry.get_live(sandbox_id)
        with anyio.CancelScope(shield=True):
            async with sandbox.lock:
                if not sandbox.paused:
                    await freeze_and_pause(sandbox)
                    sandbox.paused = True
                    sandbox.journal.set_paused(True)
                    await sandbox.cable.disconnect()

    async def resume(self, sandbox_id: str) -> None:
        """Resume the guest's CPUs and thaw its programs. Does nothing to a running sandbox."""
        sandbox = self._registry.get_live(sandbox_id)
        with anyio.CancelScope(shield=True):
            async with sandbox.lock:
                if sandbox.paused:
                    await resume_and_thaw(sandbox)
                    sandbox.paused = False
                    sandbox.journal.set_paused(False)

    async def hibernate(self, sandbox_id: str) -> Captured | None:
        """Capture the sandbox to the disk and end its machine. ``None`` when it is hibernated already.

        On failure, a full disk above all, it runs as before.
        """
        if isinstance(self._registry.get(sandbox_id), Hibernated):
            return None
        sandbox = self._registry.get_live(sandbox_id)
        with anyio.CancelScope(shield=True):
            async with sandbox.lock:
                captured = await self._capture(sandbox)
                await self._networks.keep_counters(sandbox)
                await sandbox.end()
                self._registry.register(Hibernated(sandbox.spec, self._asleep.get(sandbox.id)))
        return captured

    async def _capture(self, sandbox: Sandbox) -> Captured:
        try:
            sandbox.journal.advance(MachineState.HIBERNATING)
            async with self._asleep.adding(sandbox.id) as directory:
                captured = await capture(sandbox, directory, end=True)
                origins.write_spec(directory, sandbox.spec)
                crash_at("captured")
            await self._settle_asleep(sandbox)
        except BaseException:
            await return_to_running(sandbox)
            raise
        crash_at("asleep")
        return captured

    async def _settle_asleep(self, sandbox: Sandbox) -> None:
        """The volumes are those of the capture from now on, or of the machine if that fails."""
        try:
            await self._volumes.settle(sandbox.spec, self._asleep.get(sandbox.id).snapshot)
        except BaseException:
            with suppress(PandastackError):
                await self._volumes.settle(sandbox.spec, sandbox.origin.snapshot)
            await self._asleep.remove(sandbox.id)
            raise

    async def wake(self, sandbox_id: str, *, boot: bool = False) -> Sandbox:
        """The sandbox, running: as it was when it was hibernated, but with the right time.

        With ``boot`` it boots from its disks where its memory is lost or may not be restored.
        """
        found = self._registry.get(sandbox_id)
        if isinstance(found, Sandbox):
            await self.resume(sandbox_id)
            return self._registry.reach(sandbox_id)
        with anyio.CancelScope(shield=True):
            async with found.lock:
                sandbox = await self._wake(found, boot=boot)
        return sandbox

    async def _wake(self, found: Hibernated, *, boot: bool) -> Sandbox:
        current = self._registry.get(found.id)
        if isinstance(current, Sandbox):  # another request woke it
            return current
        sandbox = await self._sandboxes.begin(replace(found.origin, continues=True), found.spec, boot=boot)
        crash_at("awake")
        await self._asleep.remove_stored(found.id, found.origin)
        return sandbox
