"""What builds and bakes need on this host: tools, the guest's kernel and agent, a cache and a place to work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from pandastack.engine.build.accelerator import Choice, Trial, choose
from pandastack.engine.build.boot import Booted, boot
from pandastack.engine.build.machine import BUILD_CPUS, BUILD_MEMORY_MB, SURROUNDINGS, BuildMachine
from pandastack.engine.build.progress import Progress, Steps
from pandastack.engine.build.resources import UNLIMITED, MachineResources
from pandastack.engine.build.space import RESERVE, check_space, ending_when_full
from pandastack.engine.build.started import Started, may_start, started, started_key
from pandastack.engine.driver import open_driver
from pandastack.engine.layout import Layout, open_runtime_directory
from pandastack.engine.machines.boot import kernel_parameters
from pandastack.engine.machines.host_network import HostNetwork
from pandastack.engine.machines.plan import BootSpec
from pandastack.engine.work import sweep_orphans, work_name
from pandastack.guest.agent import binary as agent_binary
from pandastack.host import facts
from pandastack.host.files import own_directory
from pandastack.host.leases import remove_unused
from pandastack.images.actions import RunAction
from pandastack.images.cache import Cache, content_key, file_sha256
from pandastack.images.fsck import fetch_fsck
from pandastack.images.initramfs import build_initramfs
from pandastack.images.kernel import Kernel, fetch_kernel
from pandastack.model.accelerator import Accelerator
from pandastack.model.network import GUEST_GATEWAY, OPEN
from pandastack.vmm.driver import Driver
from pandastack.vmm.plan import Boot, Confinement, Disk, Nic, TapNic, UserNic

OnFailedRun = Callable[[BuildMachine, RunAction], Awaitable[None]]
"""Called with the machine of a failed instruction while it still runs, to inspect it."""


@dataclass(frozen=True)
class BuildHost:
    """An open host. ``recipes`` maps the names of the shipped templates to their folders."""

    layout: Layout
    cache: Cache
    driver: Driver
    kernel: Kernel
    initramfs: Path
    fsck: Path
    choice: Choice
    recipes: Mapping[str, Path]
    progress: Progress
    network: HostNetwork
    on_failed_run: OnFailedRun | None = None
    resources: MachineResources = UNLIMITED
    owner: str = ""
    """Whose builds it carries out, if not those of everybody's templates."""

    @property
    def scratch(self) -> Path:
        """Where unfinished work lies: on the cache's own file system, because disks are large."""
        return _made(self.layout.cache / "work")

    @property
    def sockets(self) -> Path:
        return self.layout.sockets.with_name(f"{self.layout.tag}-build")

    @property
    def accelerator(self) -> Accelerator:
        return self.choice.accelerator

    @property
    def cpu_flags(self) -> str:
        return self.driver.cpus[self.accelerator]

    @property
    def surroundings(self) -> str:
        """The key of what a RUN finds in every build machine, and what it may make something of: ``uname -r``,
        ``-march=native``, ``make -j$(nproc)``."""
        kernel = [self.kernel.sha256, self.kernel.modules_sha256]
        return content_key("machine", SURROUNDINGS, BUILD_CPUS, BUILD_MEMORY_MB, self.cpu_flags, kernel)

    def machine(
        self,
        purpose: str,
        work: Path,
        root: Disk,
        *others: Disk,
        cpus: int,
        memory_mb: int,
        nic: Nic | None = None,
    ) -> BootSpec:
        """A machine that boots from the disk ``root``, has ``others`` beside it and keeps its files in ``work``."""
        name = work_name(purpose)
        memory = work / f"{purpose}-memory"
        with memory.open("wb") as file:
            file.truncate(memory_mb * 1024 * 1024)
        return BootSpec(
            name=name,
            boot=self._lending(nic),
            cpus=cpus,
            memory_mb=memory_mb,
            memory=memory,
            disks=(root, *others),
            sockets=self.sockets / name.rpartition("-")[2],
            accelerator=self.accelerator,
            nic=nic,
            confinement=self._confinement(nic),
        )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Nic]:
        """The network of a build machine, for as long as the block runs: a slot with the walls of any sandbox's. Where
        there are no slots, QEMU's user-mode network lends it the host's."""
        mtu = facts.default_route_mtu()
        if not self.network.serves_names:
            yield UserNic(mtu)
            return
        async with self.network.cable() as cable:
            await cable.connect("", OPEN)
            yield TapNic(mtu, cable.slot.tap)

    @asynccontextmanager
    async def boot_machine(self, spec: BootSpec, work: Path, steps: Steps) -> AsyncIterator[Booted]:
        """A machine for as long as the block runs, within its share of the host. Waits until there is room for it."""
        check_space(spec.memory.parent, RESERVE, "a machine that builds")
        async with (
            self.resources.of(spec, steps.note_line) as placed,
            self._started(placed, work, steps) as kernel,
            boot(self.driver, placed, work, kernel=kernel) as booted,
            ending_when_full(booted.machine, spec.memory.parent, "the build"),
        ):
            yield booted

    @asynccontextmanager
    async def _started(self, spec: BootSpec, work: Path, steps: Steps) -> AsyncIterator[Started | None]:
        """A kernel for ``spec`` that has started already, where it may have one. Owners share none: it has random
        numbers of its own, such as the places of its memory."""
        if not may_start(spec):
            yield None
            return
        made_of = [self.kernel.sha256, self.kernel.modules_sha256, file_sha256(self.initramfs), self.owner]
        key = started_key(self.driver, spec, made_of)
        async with started(self.cache, self.driver, spec, key, work, steps.note_line) as kernel:
            yield kernel

    @property
    def boot(self) -> Boot:
        return Boot(self.kernel.vmlinux, self.initramfs, kernel_parameters(self.accelerator))

    def _lending(self, nic: Nic | None) -> Boot:
        """The network of a build is not that of the image: its resolver is lent."""
        lent = f"{self.boot.cmdline} pandastack.lend={GUEST_GATEWAY}".strip() if isinstance(nic, TapNic) else None
        return self.boot if lent is None else replace(self.boot, cmdline=lent)

    @property
    def confinement(self) -> Confinement | None:
        """The host user of build machines, in the empty namespace, where no server gives each a user of its own."""
        return self._confinement(None)

    def _confinement(self, nic: Nic | None) -> Confinement | None:
        netns = None if isinstance(nic, UserNic) else self.network.empty
        return Confinement(self.layout.build_uid, self.layout.build_uid, netns) if facts.is_root() else None


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


async def open_build_host(
    layout: Layout,
    recipes: Mapping[str, Path],
    progress: Progress,
    network: HostNetwork,
    on_failed_run: OnFailedRun | None = None,
    resources: MachineResources = UNLIMITED,
) -> BuildHost:
    """Open the build host: fetch the guest's kernel and try the accelerator, unless that was done before."""
    open_runtime_directory()
    hint = f"chown and chmod 700 {layout.cache}, or choose another cache directory"
    own_directory(layout.cache, links=True, hint=hint)
    await anyio.to_thread.run_sync(sweep_orphans, layout.cache / "work")
    remove_unused(layout.sockets.with_name(f"{layout.tag}-build"), contents=True)
    cache, driver = Cache(layout.cache), await open_driver()
    await anyio.to_thread.run_sync(cache.sweep)
    with Steps(progress) as steps:
        steps.next("fetch the guest kernel")
        kernel = await fetch_kernel(cache)
        steps.note(kernel.version)
        initramfs = await build_initramfs(agent_binary(facts.architecture()), kernel, cache)
        fsck = await fetch_fsck(cache)
        steps.next("try the accelerator")
        sockets = layout.sockets.with_name(f"{layout.tag}-trial")
        trial = Trial(driver, Boot(kernel.vmlinux, initramfs), sockets)
        choice = await choose(layout.cache, trial)
        steps.note(f"{choice.accelerator.value}: {choice.reason}")
    return BuildHost(
        layout,
        cache,
        driver,
        kernel,
        initramfs,
        fsck,
        choice,
        recipes,
        progress,
        network,
        on_failed_run,
        resources,
    )
