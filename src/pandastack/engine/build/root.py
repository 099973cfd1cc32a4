"""From a template's recipe to its root image.

Declared packages of the operator's own recipes are installed by the host (``images/tree.py``). Commands run in a
microVM, and so does everything of a recipe that came through the API. The machine's disk is an overlay on its base's:
the host puts the two together block by block, and never reads a file system that a guest has written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import anyio

from pandastack.disks import overlay
from pandastack.engine.build.describe import Described, Describing, Made
from pandastack.engine.build.host import BuildHost
from pandastack.engine.build.installed import FindInstalled, image_of
from pandastack.engine.build.machine import BUILD_CPUS, BUILD_MEMORY_MB, BuildMachine, prepare
from pandastack.engine.build.oci import Importer
from pandastack.engine.build.progress import Steps, megabytes
from pandastack.engine.build.renewals import Renewals
from pandastack.engine.build.secrets import refuse_written
from pandastack.engine.build.space import check_space
from pandastack.engine.work import work_directory
from pandastack.errors import BuildError
from pandastack.host import files
from pandastack.host.tasks import ahead
from pandastack.images.actions import Action, ImageConfig, RunAction, StageCopyAction
from pandastack.images.between_stages import disk_name
from pandastack.images.cache import Entry
from pandastack.images.image import DISK, Image, load_image, write_manifest
from pandastack.images.template import TemplateRecipe
from pandastack.images.tree import fetch_packages, make_image
from pandastack.model.registries import RegistryCredential
from pandastack.snapshots.manifest import ROOT
from pandastack.vmm.plan import Disk

LAYER = "layer.qcow2"
"""What the disk of a build has after an instruction and its base has not."""


Secrets = Mapping[str, bytes]
"""The values of a build's secrets, by their ids."""


@dataclass(frozen=True)
class Root:
    """A finished root image and its recipe's settings for the programs in it."""

    image: Image
    config: ImageConfig
    base: str
    foreign: bool
    """Whether it is an image of others, or made of one."""


async def build_root(
    host: BuildHost,
    recipe: TemplateRecipe,
    steps: Steps,
    find: FindInstalled,
    *,
    anew: bool = False,
    credentials: Sequence[RegistryCredential] = (),
) -> Root:
    """The root image of ``recipe``, from the cache or made now, with the bases and stages that it needs before it.
    ``find`` knows the installed templates that it may be built on.

    Everything is planned before anything is made. A base that only a tree describes is never made: what its children
    add is added to the description. With ``anew`` the instructions of the recipe are carried out whatever is cached.
    """
    renewals = Renewals(host.cache, anew=anew)
    importer = Importer(host, steps, credentials, recipe.trusted, recipe.folder)
    describing = Describing(host.recipes, steps, renewals, find, host.surroundings, importer)
    described = await describing.recipe(recipe, (recipe.name,))
    image = await _image(host, described, steps, recipe.name, recipe.given.secrets)
    await renewals.record()
    return Root(image, described.config, described.base, described.foreign)


async def _image(host: BuildHost, wanted: Described, steps: Steps, name: str, secrets: Secrets) -> Image:
    """The image that is described, made when it is not there yet."""
    if wanted.installed:
        return image_of(wanted.installed, host.cache)
    if wanted.imported is not None:
        return await wanted.imported.make()
    if wanted.tree is None:
        assert wanted.made is not None
        return await _built(host, wanted.made, steps, secrets)
    if host.cache.find("images", wanted.tree.key) is None:
        steps.next(f"fetch the packages of {name}")
        await fetch_packages(host.cache, wanted.tree, steps.advance)
        steps.next(f"install the packages of {name}")
    image = await make_image(host.cache, wanted.tree)
    replaced = ", ".join(f"{package} {change}" for package, change in image.replaced.items())
    steps.note(f"gone from the mirror: {replaced}" if replaced else megabytes(image.size_bytes))
    return image


async def _built(host: BuildHost, made: Made, steps: Steps, secrets: Secrets) -> Image:
    """The image that a machine makes. A stage whose files are in a cached layer already is not made for it."""
    directory = host.cache.root / "images" / made.wanted.key
    if host.cache.find("images", made.wanted.key) is None:
        parent = await _image(host, made.below, steps, made.below.base, secrets)
        done, _ = _last_kept(host, made.wanted.actions)
        copies = [each for each in made.wanted.actions[done:] if isinstance(each, StageCopyAction)]
        sources = {}
        for index in sorted({each.stage for each in copies}):
            source = made.sources[index]
            sources[index] = await _image(host, source, steps, source.base, secrets)
        with host.cache.holding(parent.path.parent, *(each.path.parent for each in sources.values())):
            waiting = partial(steps.note_line, f"another build makes {made.name}: waiting for it")
            async with host.cache.entry("images", made.wanted.key, waiting) as entry:
                if not entry.ready:
                    await _Making(host, made, parent, sources, secrets, steps).into(entry.work)
                    await anyio.to_thread.run_sync(entry.commit)
    return load_image(directory)


class _Contested(Exception):
    """Another build makes the layer that comes next."""


@dataclass(frozen=True)
class _Making:
    """One image, made in a machine, or in several one after the other."""

    host: BuildHost
    made: Made
    parent: Image
    sources: Mapping[int, Image]
    secrets: Secrets
    steps: Steps

    async def into(self, directory: Path) -> None:
        """Make the image in ``directory``. A copy of its parent, to begin with, is made while the machine works."""
        size = files.allocated_bytes(self.parent.path)
        check_space(directory, size, f"the image of {self.made.name}")
        async with ahead(partial(anyio.to_thread.run_sync, files.clone, self.parent.path, directory / DISK)) as copied:
            while not await self._advance(directory, copied):
                self.steps.note_line("another build makes the next layer: continuing from that")

    async def _advance(self, directory: Path, copied: Callable[[], Awaitable[object]]) -> bool:
        """Continue from the last layer that there is. Returns whether the image is whole; if not, another build has
        made a layer that comes next. Of builds that need the same layer, one makes it and the others wait."""
        actions = self.made.wanted.actions
        async with work_directory(self.host.scratch, "build") as work, AsyncExitStack() as stack:
            done, layer = _last_kept(self.host, actions)
            disk = work / "root.qcow2"
            if layer is not None:
                await anyio.to_thread.run_sync(files.clone, layer, disk)
            else:
                overlay.make_overlay(disk, self.made.disk_mb * 1024 * 1024)
            machine: BuildMachine | None = None
            try:
                for segment in layers_of(actions[done:]):
                    async with self._turn(segment, may_wait=machine is None) as entry:
                        if entry is not None and entry.ready:
                            return False
                        if machine is None:
                            machine = await stack.enter_async_context(self._machine(disk, work))
                        for action in segment:
                            self.steps.next(action.text)
                            await self._act(machine, action)
                        if entry is not None:
                            await self._keep(entry, segment[-1], machine, disk)
            except _Contested:
                return False
            if machine is None:
                machine = await stack.enter_async_context(self._machine(disk, work))
            packages = await machine.packages()
            await machine.discard_unused()
            await machine.hold_still()
            self.steps.next(f"flatten the root of {self.made.name}")
            await copied()
            check_space(directory, files.allocated_bytes(disk), f"the image of {self.made.name}")
            await anyio.to_thread.run_sync(overlay.merge, disk, directory / DISK)
        facts = {"base": self.made.below.base, "config": asdict(self.made.wanted.config)}
        write_manifest(directory, packages, {**facts, "replaced": self.parent.replaced})
        self.steps.note(megabytes(files.allocated_bytes(directory / DISK)))
        return True

    @asynccontextmanager
    async def _turn(self, segment: Sequence[Action], *, may_wait: bool) -> AsyncIterator[Entry | None]:
        """The place of the layer that the segment makes, and the only right to make it; none for the last actions.

        Raises :class:`_Contested` in place of a wait: a build that waits has no machine, whose memory the other build
        may need.
        """
        last = segment[-1]
        if not isinstance(last, RunAction):
            yield None
            return

        def waiting() -> None:
            if not may_wait:
                raise _Contested
            self.steps.note_line(f"another build runs this: waiting for its layer ({last.text[:100]})")

        async with self.host.cache.entry("layers", last.key, waiting) as entry:
            yield entry

    @asynccontextmanager
    async def _machine(self, disk: Path, work: Path) -> AsyncIterator[BuildMachine]:
        self.steps.next(f"boot a build machine for {self.made.name}")
        root = Disk(ROOT, disk, base=self.parent.path)
        others = (Disk(disk_name(index), image.path, readonly=True) for index, image in self.sources.items())
        async with self.host.connection() as nic:
            spec = self.host.machine("build", work, root, *others, cpus=BUILD_CPUS, memory_mb=BUILD_MEMORY_MB, nic=nic)
            async with self.host.boot_machine(spec, work, self.steps) as booted:
                yield await prepare(booted, self.steps.progress, self.secrets, foreign=self.made.below.foreign)

    async def _act(self, machine: BuildMachine, action: Action) -> None:
        try:
            await machine.act(action)
        except BuildError:
            if self.host.on_failed_run is not None and isinstance(action, RunAction):
                await self.host.on_failed_run(machine, action)
            raise

    async def _keep(self, entry: Entry, action: Action, machine: BuildMachine, disk: Path) -> None:
        assert isinstance(action, RunAction)
        used = {each.id: self.secrets[each.id] for each in action.secrets}
        if used:
            await machine.discard_unused()
        await machine.hold_still()
        await anyio.to_thread.run_sync(refuse_written, disk, used, f"line {action.line}: {action.text}")
        await anyio.to_thread.run_sync(files.clone, disk, entry.work / LAYER)
        await machine.go_on()
        await anyio.to_thread.run_sync(entry.commit)


def layers_of(actions: Sequence[Action]) -> Iterator[Sequence[Action]]:
    """The actions in pieces, each up to a RUN: a layer is kept after it. What follows the last RUN is a piece too."""
    start = 0
    for index, action in enumerate(actions, 1):
        if isinstance(action, RunAction) or index == len(actions):
            yield actions[start:index]
            start = index


def _last_kept(host: BuildHost, actions: Sequence[Action]) -> tuple[int, Path | None]:
    """How many actions the newest cached layer contains, and where it is. No prune removes what was just found."""
    for index in range(len(actions), 0, -1):
        kept = host.cache.find("layers", actions[index - 1].key)
        if kept is not None:
            return index, kept / LAYER
    return 0, None
