"""How sandboxes begin and end."""

from __future__ import annotations

from dataclasses import replace

from pandastack.engine.machines.restore import Restorer
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.machines.warm_pool import WarmPool
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.origin import Origin
from pandastack.engine.sandboxes.admission import Admission
from pandastack.engine.sandboxes.registry import Registry
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import ConflictError


class Sandboxes:
    """Creates and deletes sandboxes. ``saved`` holds snapshots, ``asleep`` hibernated sandboxes."""

    def __init__(
        self,
        registry: Registry,
        admission: Admission,
        restorer: Restorer,
        warm_pool: WarmPool,
        templates: Templates,
        saved: CaptureStore,
        asleep: CaptureStore,
    ) -> None:
        self._registry = registry
        self._admission = admission
        self._restorer = restorer
        self._warm_pool = warm_pool
        self._templates = templates
        self._saved = saved
        self._asleep = asleep

    async def create(self, spec: SandboxSpec, template_name: str) -> Sandbox:
        """A new sandbox, restored from the template's snapshot. A refusal for lack of room has no side effects."""
        template = self._templates.get(template_name)
        sandbox = await self._create(spec, template)
        self._warm_pool.replenish(template)
        return sandbox

    async def create_from(self, spec: SandboxSpec, snapshot_id: str) -> Sandbox:
        """A new sandbox that continues where another was captured. A refusal for lack of room has no side effects."""
        return await self._create(spec, self._saved.get(snapshot_id))

    async def _create(self, spec: SandboxSpec, origin: Origin) -> Sandbox:
        if self._registry.find(spec.sandbox):
            raise ConflictError(f"sandbox {spec.sandbox} exists already", field="id")
        return await self.begin(origin, replace(spec, env={**origin.template.env, **spec.env}))

    async def begin(self, origin: Origin, spec: SandboxSpec) -> Sandbox:
        """The sandbox of ``spec`` in the state of ``origin``: creates, wakes, forks and rewinds all begin here.

        Raises :class:`CapacityError` when the host has no room, :class:`ConflictError` when ``origin`` does not fit
        it, both before anything is done.
        """
        with self._admission.admitted(origin, sandbox_id=spec.sandbox):
            sandbox = await self._restorer.restore(origin, spec)
            self._registry.register(sandbox)
        return sandbox

    async def delete(self, sandbox_id: str) -> None:
        """End the sandbox; returns once nothing of it is left."""
        sandbox = self._registry.get(sandbox_id)
        if isinstance(sandbox, Hibernated):
            async with sandbox.lock:  # a wake may be in progress
                if self._asleep.has(sandbox_id):
                    await self._asleep.remove(sandbox_id)
            sandbox = self._registry.find(sandbox_id) or sandbox
        if isinstance(sandbox, Sandbox):
            await sandbox.end()
        self._registry.remove(sandbox_id)
