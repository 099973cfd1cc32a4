"""The sandboxes of an engine, by id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from pandastack.contract.events import MachineContinued, MachineDied, MachineStalled
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.sandboxes.events import Events
from pandastack.errors import ConflictError, NotFoundError


class Registry:
    """Every sandbox that this engine knows: those with a machine and those on the disk."""

    def __init__(self, events: Events, asleep: CaptureStore) -> None:
        self._events = events
        self._asleep = asleep
        self._sandboxes: dict[str, Sandbox | Hibernated] = {}
        self._beginning: dict[str, anyio.Event] = {}

    @contextmanager
    def beginning(self, sandbox_id: str) -> Iterator[None]:
        """Have :meth:`wait_begun` wait for the end of the block, in which the sandbox gets its machine."""
        event = self._beginning[sandbox_id] = anyio.Event()
        try:
            yield
        finally:
            event.set()
            if self._beginning.get(sandbox_id) is event:
                del self._beginning[sandbox_id]

    async def wait_begun(self, sandbox_id: str) -> None:
        """Return once the sandbox is not about to get a machine."""
        while (event := self._beginning.get(sandbox_id)) is not None:
            await event.wait()

    def register(self, sandbox: Sandbox | Hibernated) -> None:
        """Register the sandbox, replacing any other with its id."""
        self._sandboxes[sandbox.id] = sandbox

    def remove(self, sandbox_id: str) -> None:
        """Remove the sandbox; does nothing if it is not registered."""
        self._sandboxes.pop(sandbox_id, None)

    async def remove_stored(self, sandbox_id: str) -> None:
        """Remove what is on the disk of a sandbox that is hibernated, or whose machine was lost."""
        if self._asleep.has(sandbox_id):
            await self._asleep.remove(sandbox_id)

    def list(self) -> list[Sandbox | Hibernated]:
        return list(self._sandboxes.values())

    def find(self, sandbox_id: str) -> Sandbox | Hibernated | None:
        return self._sandboxes.get(sandbox_id)

    def get(self, sandbox_id: str) -> Sandbox | Hibernated:
        """The sandbox. Raises :class:`NotFoundError`."""
        try:
            return self._sandboxes[sandbox_id]
        except KeyError:
            raise NotFoundError(f"sandbox {sandbox_id} not found") from None

    def get_live(self, sandbox_id: str) -> Sandbox:
        """The sandbox, if it has a machine, running or paused. Raises :class:`ConflictError` otherwise."""
        sandbox = self.get(sandbox_id)
        if isinstance(sandbox, Hibernated):
            raise ConflictError(f"sandbox {sandbox_id} is hibernated", hint="wake it first")
        if sandbox.failure:
            raise ConflictError(f"sandbox {sandbox_id} has failed: {sandbox.failure}", hint="create a new one")
        return sandbox

    def reach(self, sandbox_id: str) -> Sandbox:
        """The sandbox, if its guest answers. Raises :class:`ConflictError` when it is hibernated, failed or paused."""
        sandbox = self.get_live(sandbox_id)
        if sandbox.paused:
            raise ConflictError(f"sandbox {sandbox_id} is paused", hint="resume it first")
        return sandbox

    def reach_again(self, sandbox_id: str) -> Sandbox:
        """As :meth:`reach`, for what was open in the guest before. Raises :class:`NotFoundError` when it has ended with
        the sandbox's memory."""
        sandbox = self.get(sandbox_id)
        if isinstance(sandbox, Hibernated):
            lost = sandbox.origin.snapshot.manifest.memory_lost
        else:
            lost = sandbox.failure or ""
        if lost:
            raise NotFoundError(f"what was open in sandbox {sandbox_id} has ended with its memory: {lost}")
        return self.reach(sandbox_id)

    def machine_stalled(self, sandbox_id: str, stalled: bool) -> None:
        """Publish ``vm.stalled`` or ``vm.continued`` for a known sandbox."""
        if self.find(sandbox_id) is not None:
            self._events.publish(MachineStalled(sandbox_id) if stalled else MachineContinued(sandbox_id))

    def machine_ended(self, sandbox: Sandbox) -> None:
        """Publish ``vm.died`` if a known sandbox's machine has ended by itself. With its disks it can be booted."""
        if not sandbox.failure or self.find(sandbox.id) is not sandbox:
            return
        kept = self._asleep.has(sandbox.id)
        if kept:
            self.register(Hibernated(sandbox.spec, self._asleep.get(sandbox.id)))
        self._events.publish(MachineDied(sandbox.id, sandbox.machine.pid, sandbox.failure, disks_kept=kept))
