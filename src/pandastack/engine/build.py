"""From a template's recipe to its root image. Every command of the recipe runs in a microVM, and so does the program
that reads the disk it leaves behind: the host never mounts a file system that a guest has written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pandastack.disks.ext4 import make_ext4
from pandastack.engine.boot import boot
from pandastack.engine.build_machine import BuildMachine, prepare
from pandastack.engine.flatten import flatten
from pandastack.engine.orphans import work_directory
from pandastack.engine.progress import Steps, megabytes
from pandastack.engine.workshop import Workshop
from pandastack.errors import BadRequestError
from pandastack.host import files
from pandastack.images import bootstrap
from pandastack.images.apt import SUITE
from pandastack.images.erofs import DISK, Image, load_image, write_manifest
from pandastack.images.plan import Action, BuildPlan, ImageConfig, RunAction, base_name, plan
from pandastack.images.template import TemplateRecipe

BUILD_MEMORY_MB = 2048
BUILD_CPUS = 2
BUILD_DISK_MB = 16 * 1024

_DEBIAN = "debian"


@dataclass(frozen=True)
class Root:
    """A finished root image and what its recipe says about programs in it."""

    image: Image
    config: ImageConfig
    base: str


async def build_root(workshop: Workshop, recipe: TemplateRecipe, steps: Steps) -> Root:
    """The root image of ``recipe``, from the cache or made now, its base first."""
    parent = await _parent(workshop, base_name(recipe.dockerfile), steps, frozenset({recipe.name}))
    return await _build(workshop, recipe, parent, steps)


async def _parent(workshop: Workshop, name: str, steps: Steps, below: frozenset[str]) -> Root:
    """What FROM names: another shipped template, or a Debian suite."""
    if name in below:
        raise BadRequestError(f"FROM {name}: a template cannot be built from itself", field="dockerfile")
    recipe = workshop.recipe(name)
    if recipe is not None:
        grandparent = await _parent(workshop, base_name(recipe.dockerfile), steps, below | {name})
        return await _build(workshop, recipe, grandparent, steps)
    distribution, _, suite = name.partition(":")
    if distribution != _DEBIAN or (suite or SUITE) != SUITE:
        hint = f"FROM {_DEBIAN}:{SUITE}, or one of: {', '.join(workshop.recipe_names())}"
        raise BadRequestError(f"FROM {name}: no such base", hint=hint, field="dockerfile")
    steps.next(f"bootstrap {_DEBIAN}:{SUITE}")
    image = await bootstrap.debian(workshop.cache)
    steps.note(megabytes(image.size_bytes))
    return Root(image, ImageConfig(), name)


async def _build(workshop: Workshop, recipe: TemplateRecipe, parent: Root, steps: Steps) -> Root:
    wanted = plan(recipe.dockerfile, recipe.context, parent_key=parent.image.key, parent=parent.config)
    async with workshop.cache.entry("images", wanted.key) as entry:
        if not entry.ready:
            await _make(workshop, recipe, wanted, parent, entry.work, steps)
            entry.commit()
    return Root(load_image(workshop.cache.root / "images" / wanted.key), wanted.config, wanted.base)


async def _make(
    workshop: Workshop, recipe: TemplateRecipe, wanted: BuildPlan, parent: Root, into: Path, steps: Steps
) -> None:
    with work_directory(workshop.scratch, "build") as work:
        done = await _last_kept(workshop, wanted.actions, work / "disk.img")
        steps.next(f"boot a build machine for {recipe.name}")
        async with _machine(workshop, parent.image, work, steps) as machine:
            for action in wanted.actions[done:]:
                steps.next(action.text)
                await machine.act(action)
                if isinstance(action, RunAction):
                    await _keep(workshop, action, machine, work / "disk.img")
            packages = await machine.packages()
            await machine.hold_still()
        steps.next(f"pack the root of {recipe.name}")
        await flatten(workshop, parent.image, work / "disk.img", into / DISK, wanted.key, work)
        write_manifest(into, packages, {"base": wanted.base, "config": asdict(wanted.config)})
        steps.note(megabytes((into / DISK).stat().st_size))


async def _last_kept(workshop: Workshop, actions: Sequence[Action], disk: Path) -> int:
    """Put the newest kept disk in place, or an empty one; returns how many actions it already holds."""
    for index in range(len(actions), 0, -1):
        kept = workshop.cache.find("layers", actions[index - 1].key)
        if kept is not None:
            files.clone(kept / "disk.img", disk)
            return index
    await make_ext4(disk, BUILD_DISK_MB)
    return 0


async def _keep(workshop: Workshop, action: Action, machine: BuildMachine, disk: Path) -> None:
    async with workshop.cache.entry("layers", action.key) as entry:
        if entry.ready:
            return
        await machine.hold_still()
        files.clone(disk, entry.work / "disk.img")
        await machine.go_on()
        entry.commit()


@asynccontextmanager
async def _machine(workshop: Workshop, image: Image, work: Path, steps: Steps) -> AsyncIterator[BuildMachine]:
    spec = workshop.machine(
        "build", work, image.path, work / "disk.img", cpus=BUILD_CPUS, memory_mb=BUILD_MEMORY_MB, network=True
    )
    async with boot(workshop.qemu, spec, work) as booted:
        yield await prepare(booted, steps.progress)
