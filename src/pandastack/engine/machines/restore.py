"""From an origin to a running guest: the one way in which sandboxes and temporary machines begin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial

import anyio
import structlog

from pandastack.engine.machines.sandbox import Sandbox
from pandastack.engine.machines.stopwatch import Stopwatch
from pandastack.engine.machines.warm_pool import WarmPool
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.origin import BootOrigin, Origin, Start
from pandastack.engine.origins.start import Host, plan_start
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import ConflictError
from pandastack.host import facts
from pandastack.host.tasks import together
from pandastack.model.accelerator import Accelerator
from pandastack.model.confinement import Measure
from pandastack.vmm.driver import Driver

log = structlog.get_logger(__name__)


class Restorer:
    """Restores origins whose memory fits this host's driver, and boots the disks of others; when ``required`` includes
    KVM, only on KVM."""

    def __init__(
        self, driver: Driver, warm_pool: WarmPool, templates: Templates, required: Collection[Measure] = ()
    ) -> None:
        self._driver = driver
        self._required = required
        self._templates = templates
        self._warm_pool = warm_pool

    async def restore(self, origin: Origin, spec: SandboxSpec, *, boot: bool = False) -> Sandbox:
        """A machine for ``spec`` that is restored from ``origin``. With ``boot``, one that boots from its disks where
        its memory may not be restored.

        Raises :class:`ConflictError` before anything is done when ``origin`` does not fit this host.
        """
        self._check_required(origin)
        start = plan_start(
            origin, self._host(), boot=boot, current=self._templates.find(origin.name, origin.template.owner)
        )
        self._check_required(start)
        match start:
            case BootOrigin():
                log.warning("sandbox.booting", sandbox_id=spec.sandbox, reason=start.reason)
                return await self._warm_pool.boot(start, spec, Stopwatch())
            case Origin():
                return await self._warm_pool.claim(start, spec, Stopwatch())

    def check(self, origin: Origin) -> None:
        """Raise :class:`ConflictError` unless the memory of ``origin`` may be restored here."""
        self._check_required(origin)
        plan_start(origin, self._host(), boot=False)

    def _host(self) -> Host:
        """What guests run with here. What the templates were made with has been tried; /dev/kvm alone proves little."""
        cpus = dict(self._driver.cpus)
        if not facts.has_kvm():
            cpus.pop(Accelerator.KVM, None)
        tried = self._templates.weakest_accelerator()
        return Host(self._driver.identity, cpus, tried if tried in cpus else Accelerator.TCG)

    def _check_required(self, start: Start) -> None:
        if Measure.KVM in self._required and start.snapshot.manifest.accelerator != Accelerator.KVM:
            message = f"template {start.name} was built for software emulation, and this server requires kvm"
            raise ConflictError(message, hint="build the template again on this host: `pandastack template build`")

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
