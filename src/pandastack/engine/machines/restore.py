"""From an origin to a running guest: the one way in which sandboxes and temporary machines begin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial

import anyio

from pandastack.engine.machines.sandbox import Sandbox
from pandastack.engine.machines.stopwatch import Stopwatch
from pandastack.engine.machines.warm_pool import WarmPool
from pandastack.engine.origins.origin import Origin
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import ConflictError
from pandastack.host.tasks import together
from pandastack.model.accelerator import Accelerator
from pandastack.model.confinement import Measure
from pandastack.vmm.driver import Driver


class Restorer:
    """Restores origins that fit this host's driver; when ``required`` includes KVM, only those made for KVM."""

    def __init__(self, driver: Driver, warm_pool: WarmPool, required: Collection[Measure] = ()) -> None:
        self._driver = driver
        self._required = required
        self._warm_pool = warm_pool

    async def restore(self, origin: Origin, spec: SandboxSpec) -> Sandbox:
        """A machine for ``spec`` that is restored from ``origin``.

        Raises :class:`ConflictError` before anything is done when ``origin`` does not fit this host.
        """
        accelerator = Accelerator(origin.snapshot.manifest.accelerator)
        if Measure.KVM in self._required and accelerator is not Accelerator.KVM:
            message = f"template {origin.name} was built for software emulation, and this server requires kvm"
            raise ConflictError(message, hint="build the template again on this host: `pandastack template build`")
        origin.snapshot.check(vmm=self._driver.identity, cpu_flags=self._driver.cpus[accelerator])
        return await self._warm_pool.claim(origin, spec, Stopwatch())

    @asynccontextmanager
    async def temporary(self, *origins: Origin) -> AsyncIterator[list[Sandbox]]:
        """Machines whose programs stay frozen, one per origin, for as long as the block runs.

        They belong to no sandbox and are in no list. The next engine sweeps those that a killed one left behind.
        """
        made: dict[int, Sandbox] = {}

        async def make(index: int, origin: Origin) -> None:
            made[index] = await self.restore(origin, SandboxSpec(sandbox="", hostname="snapshot", frozen=True))

        try:
            await together(*(partial(make, index, origin) for index, origin in enumerate(origins)))
            yield [made[index] for index in range(len(origins))]
        finally:
            with anyio.CancelScope(shield=True):
                await together(*(sandbox.end for sandbox in made.values()))
