"""What builds and bakes need on this host: tools, the guest's kernel and agent, a cache and a place to work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pandastack.engine.build.accelerator import Choice, Trial, choose
from pandastack.engine.build.machine import BuildMachine
from pandastack.engine.build.progress import Progress, Steps
from pandastack.engine.driver import open_driver
from pandastack.engine.layout import Layout, open_runtime_directory
from pandastack.engine.machines.plan import BootSpec
from pandastack.engine.work import sweep_orphans, work_name
from pandastack.guest.agent import binary as agent_binary
from pandastack.host import facts
from pandastack.host.files import own_directory
from pandastack.host.tsc import tsc_khz
from pandastack.images import bootstrap
from pandastack.images.cache import Cache
from pandastack.images.initramfs import build_initramfs
from pandastack.images.kernel import Kernel, fetch_kernel
from pandastack.images.plan import RunAction
from pandastack.images.template import TemplateRecipe, load_template
from pandastack.model.accelerator import Accelerator
from pandastack.vmm.driver import Driver
from pandastack.vmm.plan import Boot, Confinement, Disk, UserNic

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
    choice: Choice
    recipes: Mapping[str, Path]
    progress: Progress
    on_failed_run: OnFailedRun | None = None

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

    def recipe_names(self) -> list[str]:
        return sorted(self.recipes)

    def recipe(self, name: str) -> TemplateRecipe | None:
        """The shipped template called ``name``."""
        folder = self.recipes.get(name)
        return load_template(folder) if folder else None

    def machine(
        self, purpose: str, work: Path, image: Path, disk: Path, *, cpus: int, memory_mb: int, network: bool
    ) -> BootSpec:
        """A machine that boots ``image`` with ``disk`` on top of it and keeps its files in ``work``."""
        name = work_name(purpose)
        memory = work / f"{purpose}-memory"
        with memory.open("wb") as file:
            file.truncate(memory_mb * 1024 * 1024)
        return BootSpec(
            name=name,
            boot=self.boot,
            cpus=cpus,
            memory_mb=memory_mb,
            memory=memory,
            disks=(Disk("image", image, readonly=True), Disk("root", disk)),
            sockets=self.sockets / name.rpartition("-")[2],
            accelerator=self.accelerator,
            nic=UserNic(facts.default_route_mtu()) if network else None,
            confinement=self.confinement,
        )

    @property
    def boot(self) -> Boot:
        return Boot(self.kernel.vmlinux, self.initramfs, kernel_parameters(self.accelerator))

    @property
    def confinement(self) -> Confinement | None:
        """The host user of build machines. They share one: the machines of a build all run one author's recipe."""
        return Confinement(self.layout.build_uid, self.layout.build_uid) if facts.is_root() else None


def kernel_parameters(accelerator: Accelerator) -> str:
    """Kernel parameters that a guest needs under software emulation; with KVM there are none.

    The clock's rate, which KVM tells a guest. Programs at the same addresses in every process: QEMU finds translated
    code by its address, and would translate the shell and its libraries anew for each command if addresses were random.
    """
    if accelerator is Accelerator.KVM:
        return ""
    khz = tsc_khz()
    return " ".join(["norandmaps", *([f"tsc_early_khz={khz}"] if khz else [])])


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def with_disks(spec: BootSpec, *, readonly: tuple[Path, ...] = (), writable: tuple[Path, ...] = ()) -> BootSpec:
    """``spec`` with more disks, from ``/dev/vdc`` on."""
    added = [(path, True) for path in readonly] + [(path, False) for path in writable]
    more = (Disk(f"extra{index}", path, readonly) for index, (path, readonly) in enumerate(added))
    return replace(spec, disks=(*spec.disks, *more))


async def open_build_host(
    layout: Layout, recipes: Mapping[str, Path], progress: Progress, on_failed_run: OnFailedRun | None = None
) -> BuildHost:
    """Open the build host: fetch the guest's kernel and try the accelerator, unless that was done before."""
    open_runtime_directory()
    hint = f"chown and chmod 700 {layout.cache}, or choose another cache directory"
    own_directory(layout.cache, links=True, hint=hint)
    sweep_orphans(layout.cache / "work")
    cache, driver = Cache(layout.cache), await open_driver()
    with Steps(progress) as steps:
        steps.next("fetch the guest kernel")
        kernel = await fetch_kernel(cache)
        steps.note(kernel.version)
        initramfs = await build_initramfs(agent_binary(facts.architecture()), kernel, cache)
        steps.next("try the accelerator")
        tools = await bootstrap.builder(cache)
        sockets = layout.sockets.with_name(f"{layout.tag}-trial")
        trial = Trial(driver, Boot(kernel.vmlinux, initramfs), tools.path, sockets)
        choice = await choose(layout.cache, trial)
        steps.note(f"{choice.accelerator.value}: {choice.reason}")
    return BuildHost(layout, cache, driver, kernel, initramfs, choice, recipes, progress, on_failed_run)
