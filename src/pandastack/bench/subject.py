"""The baseline of the platform: the same snapshot, restored and booted without it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from pandastack.bench.floor import Floor
from pandastack.bench.report import machine_facts
from pandastack.disks.overlay import disk_size, make_overlay
from pandastack.disks.pool import open_pool
from pandastack.engine.build.boot import boot
from pandastack.engine.build.host import BuildHost
from pandastack.engine.layout import MACHINES, Layout
from pandastack.engine.machines.allocation import Allocation
from pandastack.engine.machines.plan import restore_plan
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.origin import link_base
from pandastack.engine.work import work_directory
from pandastack.host import facts
from pandastack.network.namespace import empty_namespace
from pandastack.vmm.plan import Disk
from pandastack.vmm.qemu.driver import open_qemu

NAME = "bench-floor"


@asynccontextmanager
async def open_floor(layout: Layout, template: str, number: int = 1) -> AsyncIterator[tuple[Floor, dict[str, object]]]:
    """The floor for ``template`` on the engine's own storage, and the facts of this machine. Those of different
    numbers can be measured at once."""
    async with open_pool(layout.engine) as pool:
        installed = Templates(layout.templates, pool).get(template)
        # Not in the engine's own directory of machines, where it would be swept.
        async with work_directory(pool.directory, "floor") as work:
            netns = await empty_namespace()
            allocation = Allocation(f"{NAME}-{number}", MACHINES - number, work, work, netns, (), facts.is_root())
            link_base(installed, work)
            plan = restore_plan(layout, allocation, installed.snapshot)
            driver = await open_qemu()
            floor = Floor(driver.binary, plan, installed.snapshot.devices, installed.snapshot.root, work)
            yield floor, machine_facts(driver.identity, plan.accelerator.value)


async def cold_boots(host: BuildHost, root: Disk, memory_mb: int, n: int) -> list[float]:
    """Milliseconds from the VMM's start until the agent has its identity, for ``n`` boots of a template's disk."""
    samples: list[float] = []
    async with work_directory(host.scratch, "boot") as work:
        for _ in range(n):
            make_overlay(work / "root.qcow2", disk_size(root.path))
            fresh = replace(root, path=work / "root.qcow2")
            spec = host.machine("bench", work, fresh, cpus=1, memory_mb=memory_mb)
            started = time.perf_counter()
            async with boot(host.driver, spec, work):
                samples.append((time.perf_counter() - started) * 1000)
    return samples
