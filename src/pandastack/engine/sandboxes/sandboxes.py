"""How sandboxes begin and end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import anyio

from pandastack.contract.sandboxes import DEFAULT_SIZE, WantedSize
from pandastack.contract.volumes import AttachVolume
from pandastack.engine.machines.restore import Restorer
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.machines.warm_pool import WarmPool
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.origin import Origin
from pandastack.engine.sandboxes.admission import Admission
from pandastack.engine.sandboxes.network import Networks
from pandastack.engine.sandboxes.registry import Registry
from pandastack.engine.sandboxes.sizes import sized
from pandastack.engine.sandboxes.volumes import Volumes
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import ConflictError, PandastackError
from pandastack.model.network import NetworkPolicy


class Sandboxes:
    """Creates and deletes sandboxes. ``saved`` holds snapshots.
    ``explain`` makes the error for a create that its template does not allow."""

    def __init__(
        self,
        registry: Registry,
        admission: Admission,
        restorer: Restorer,
        warm_pool: WarmPool,
        templates: Templates,
        saved: CaptureStore,
        networks: Networks,
        volumes: Volumes,
        explain: Callable[[Origin, ConflictError], PandastackError],
    ) -> None:
        self._registry = registry
        self._admission = admission
        self._restorer = restorer
        self._warm_pool = warm_pool
        self._templates = templates
        self._saved = saved
        self._networks = networks
        self._volumes = volumes
        self._explain = explain

    async def create(
        self,
        spec: SandboxSpec,
        template_name: str,
        size: WantedSize = DEFAULT_SIZE,
        *,
        owner: str = "",
        network: NetworkPolicy | None = None,
        secrets: Collection[str] = (),
        boot: bool = False,
        volumes: Sequence[AttachVolume] = (),
    ) -> Sandbox:
        """A new sandbox, restored from the snapshot of ``owner``'s template, else of everybody's. A refusal for lack of
        room has no side effects.

        ``network`` None: the policy of the template, which may name these ``secrets`` and no others. ``volumes`` are in
        the order of their places.
        """
        template = self._templates.get(template_name, owner)
        async with self._volumes.attaching(template, volumes) as (origin, attachments):
            spec = replace(spec, volumes=attachments)
            try:
                sandbox = await self._create(spec, origin, size, network, secrets, boot=boot)
            except ConflictError as error:
                raise self._explain(template, error) from error
        if self._templates.find(template.name, template.template.owner):  # it may have been removed meanwhile
            self._warm_pool.replenish(template)
        return sandbox

    async def create_from(
        self,
        spec: SandboxSpec,
        snapshot_id: str,
        size: WantedSize = DEFAULT_SIZE,
        *,
        network: NetworkPolicy | None = None,
        secrets: Collection[str] = (),
        boot: bool = False,
    ) -> Sandbox:
        """A new sandbox that continues where another was captured; otherwise as :meth:`create`. The policy of the
        captured sandbox was its own, not that of its copies."""
        origin = self._saved.get(snapshot_id)
        sandbox = await self._create(spec, origin, size, network, secrets, boot=boot)
        if self._saved.has(snapshot_id) and not sandbox.memory_lost:  # it may have been deleted meanwhile
            self._warm_pool.snapshots.created(origin)
        return sandbox

    def expect(self, snapshot_id: str, count: int, seconds: float) -> None:
        """Have ``count`` machines wait for creates from a snapshot during the next ``seconds``, within the budget.

        Raises :class:`NotFoundError`, and :class:`ConflictError` for one whose memory may not be restored here.
        """
        origin = self._saved.get(snapshot_id)
        self._restorer.check(origin)
        self._warm_pool.snapshots.expect(origin, count, seconds)

    async def _create(
        self,
        spec: SandboxSpec,
        origin: Origin,
        size: WantedSize,
        network: NetworkPolicy | None,
        secrets: Collection[str],
        *,
        boot: bool,
    ) -> Sandbox:
        if self._registry.find(spec.sandbox):
            raise ConflictError(f"sandbox {spec.sandbox} exists already", field="id")
        origin = sized(origin, size, self._admission.host_size())
        policy = self._networks.choose(network, origin.template, secrets)
        env = {**origin.template.env, **spec.env}
        return await self.begin(origin, replace(spec, env=env, network=policy), boot=boot)

    async def begin(self, origin: Origin, spec: SandboxSpec, *, boot: bool = False) -> Sandbox:
        """The sandbox of ``spec`` in the state of ``origin``: creates, wakes, forks and rewinds all begin here.

        With ``boot`` it has only the disks of ``origin`` where the memory may not be restored.
        Raises :class:`CapacityError` when the host has no room, :class:`ConflictError` when ``origin`` does not fit
        it, both before anything is done.
        """
        fresh = not origin.snapshot.manifest.parent  # of a template: the sandbox brings its template's volumes along
        new = range(len(origin.snapshot.manifest.mounts) - len(origin.attached)) if fresh else ()
        with (
            self._admission.admitted(origin, sandbox_id=spec.sandbox),
            self._volumes.reserved(spec, new=new),
            self._registry.beginning(spec.sandbox),
        ):
            sandbox = await self._restorer.restore(origin, spec, boot=boot)
            with anyio.CancelScope(shield=True):
                await self._settle(sandbox)
            self._registry.register(sandbox)
        return sandbox

    async def _settle(self, sandbox: Sandbox) -> None:
        try:
            await self._volumes.settle(sandbox.spec, sandbox.origin.snapshot)
        except BaseException:
            await sandbox.end()
            raise

    async def delete(self, sandbox_id: str) -> None:
        """End the sandbox; returns once nothing of it is left.

        One that is being made is made first: who asked for it may have left, and nobody else would know of its machine.
        """
        await self._registry.wait_begun(sandbox_id)
        sandbox = self._registry.get(sandbox_id)
        if isinstance(sandbox, Hibernated):
            async with sandbox.lock:  # a wake may be in progress
                if self._registry.find(sandbox_id) is sandbox:  # nobody woke it
                    await self._volumes.settle_again(sandbox)
                await self._registry.remove_stored(sandbox_id)
            sandbox = self._registry.find(sandbox_id) or sandbox
        if isinstance(sandbox, Sandbox):
            await self._volumes.flush(sandbox)
            await sandbox.end()
            await self._registry.remove_stored(sandbox_id)  # the machine may have been lost just before
        self._registry.remove(sandbox_id)
        self._networks.forget(sandbox_id)
