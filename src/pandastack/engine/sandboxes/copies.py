"""Snapshots and forks: a running sandbox is captured and continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from pandastack.contract.sandboxes import Captured
from pandastack.engine import origins
from pandastack.engine.crash_points import crash_at
from pandastack.engine.machines.capture import capture
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.origins.origin import Origin
from pandastack.engine.sandboxes.admission import Admission
from pandastack.engine.sandboxes.registry import Registry
from pandastack.engine.sandboxes.sandboxes import Sandboxes
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import ConflictError, PandastackError
from pandastack.host.tasks import together


@dataclass(frozen=True)
class Child:
    """One child of a fork: the sandbox, or the error that prevented it."""

    spec: SandboxSpec
    made: Sandbox | PandastackError


@dataclass(frozen=True)
class Forked:
    """The result of a fork. The children are in the order of the request."""

    captured: Captured
    children: list[Child]


class Copies:
    """The operations. Each is shielded: cancelling the caller does not leave it half done."""

    def __init__(self, registry: Registry, admission: Admission, sandboxes: Sandboxes, saved: CaptureStore) -> None:
        self._registry = registry
        self._admission = admission
        self._sandboxes = sandboxes
        self._saved = saved

    async def snapshot(self, sandbox_id: str, snapshot_id: str) -> Captured:
        """Store the sandbox's state as the snapshot ``snapshot_id``."""
        sandbox = self._registry.reach(sandbox_id)
        if self._saved.has(snapshot_id):
            raise ConflictError(f"snapshot {snapshot_id} exists already", field="id")
        self._admission.check_storage()
        with anyio.CancelScope(shield=True):
            async with sandbox.lock, self._saved.adding(snapshot_id) as directory:
                captured = await capture(sandbox, directory)
                origins.write_spec(directory, sandbox.spec)
                crash_at("captured")
        return captured

    async def fork(self, sandbox_id: str, specs: Sequence[SandboxSpec]) -> Forked:
        """Copies of the sandbox, all from one capture. The failure of one child does not affect the others."""
        sandbox = self._registry.reach(sandbox_id)
        self._admission.check(*[sandbox.origin] * len(specs))
        with anyio.CancelScope(shield=True):
            # The children hard-link what they need, so the capture can be removed once they exist.
            async with self._saved.scratch() as directory:
                async with sandbox.lock:
                    captured = await capture(sandbox, directory, sync=False)
                crash_at("captured")
                children = await self._begin_all(origins.load(directory), specs)
        return Forked(captured, children)

    async def _begin_all(self, origin: Origin, specs: Sequence[SandboxSpec]) -> list[Child]:
        async def begin(spec: SandboxSpec) -> Child:
            try:
                return Child(spec, await self._sandboxes.begin(origin, spec))
            except PandastackError as error:
                return Child(spec, error)

        return await together(*(lambda spec=spec: begin(spec) for spec in specs))
