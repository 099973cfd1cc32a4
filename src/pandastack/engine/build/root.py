"""From a template's recipe to its root image. Every command of the recipe runs in a microVM, and so does the program
that reads the disk it leaves behind: the host never mounts a file system that a guest has written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio

from pandastack.disks.ext4 import make_ext4
from pandastack.engine.build.boot import boot
from pandastack.engine.build.host import BuildHost
from pandastack.engine.build.machine import BuildMachine, prepare
from pandastack.engine.build.pack import flatten
from pandastack.engine.build.progress import Steps, megabytes
from pandastack.engine.work import work_directory
from pandastack.errors import BadRequestError, BuildError
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
    """A finished root image and its recipe's settings for the programs in it."""

    image: Image
    config: ImageConfig
    base: str


async def build_root(host: BuildHost, recipe: TemplateRecipe, steps: Steps) -> Root:
    """The root image of ``recipe``, from the cache or made now, its base first."""
    parent = await _parent(host, base_name(recipe.dockerfile), steps, frozenset({recipe.name}))
    return await _build(host, recipe, parent, steps)


async def _parent(host: BuildHost, name: str, steps: Steps, below: frozenset[str]) -> Root:
    """The base that FROM names: another shipped template, or a Debian suite."""
    if name in below:
        raise BadRequestError(f"FROM {name}: a template cannot be built from itself", field="dockerfile")
    recipe = host.recipe(name)
    if recipe is not None:
        grandparent = await _parent(host, base_name(recipe.dockerfile), steps, below | {name})
        return await _build(host, recipe, grandparent, steps)
    distribution, _, suite = name.partition(":")
    if distribution != _DEBIAN or (suite or SUITE) != SUITE:
        hint = f"FROM {_DEBIAN}:{SUITE}, or one of: {', '.join(host.recipe_names())}"
        raise BadRequestError(f"FROM {name}: no such base", hint=hint, field="dockerfile")
    steps.next(f"bootstrap {_DEBIAN}:{SUITE}")
    image = await bootstrap.debian(host.cache)
    steps.note(megabytes(image.size_bytes))
    return Root(image, ImageConfig(), name)


async def _build(host: BuildHost, recipe: TemplateRecipe, parent: Root, steps: Steps) -> Root:
    wanted = plan(recipe.dockerfile, recipe.context, parent_key=parent.image.key, parent=parent.config)
    async with host.cache.entry("images", wanted.key) as entry:
        if not entry.ready:
            await _make(host, recipe, wanted, parent, entry.work, steps)
            entry.commit()
    return Root(load_image(host.cache.root / "images" / wanted.key), wanted.config, wanted.base)


async def _make(
    host: BuildHost, recipe: TemplateRecipe, wanted: BuildPlan, parent: Root, into: Path, steps: Steps
) -> None:
    async with work_directory(host.scratch, "build") as work:
        done = await _last_kept(host, wanted.actions, work / "disk.img")
        steps.next(f"boot a build machine for {recipe.name}")
        async with _machine(host, parent.image, work, steps) as machine:
            for action in wanted.actions[done:]:
                steps.next(action.text)
                await _act(host, machine, action)
                if isinstance(action, RunAction):
                    await _keep(host, action, machine, work / "disk.img")
            packages = await machine.packages()
            await machine.hold_still()
        steps.next(f"pack the root of {recipe.name}")
        await flatten(host, parent.image, work / "disk.img", into / DISK, wanted.key, work)
        write_manifest(into, packages, {"base": wanted.base, "config": asdict(wanted.config)})
        steps.note(megabytes((into / DISK).stat().st_size))


async def _act(host: BuildHost, machine: BuildMachine, action: Action) -> None:
    try:
        await machine.act(action)
    except BuildError:
        if host.on_failed_run is not None and isinstance(action, RunAction):
            await host.on_failed_run(machine, action)
        raise


async def _last_kept(host: BuildHost, actions: Sequence[Action], disk: Path) -> int:
    """Put the newest cached disk in place, or an empty one; returns how many actions it already contains."""
    for index in range(len(actions), 0, -1):
        kept = host.cache.find("layers", actions[index - 1].key)
        if kept is not None:
            await anyio.to_thread.run_sync(files.clone, kept / "disk.img", disk)
            return index
    await make_ext4(disk, BUILD_DISK_MB)
    return 0


async def _keep(host: BuildHost, action: Action, machine: BuildMachine, disk: Path) -> None:
    async with host.cache.entry("layers", action.key) as entry:
        if entry.ready:
            return
        await machine.hold_still()
        await anyio.to_thread.run_sync(files.clone, disk, entry.work / "disk.img")
        await machine.go_on()
        entry.commit()


@asynccontextmanager
async def _machine(host: BuildHost, image: Image, work: Path, steps: Steps) -> AsyncIterator[BuildMachine]:
    spec = host.machine(
        "build", work, image.path, work / "disk.img", cpus=BUILD_CPUS, memory_mb=BUILD_MEMORY_MB, network=True
    )
    async with boot(host.driver, spec, work) as booted:
        yield await prepare(booted, steps.progress)
