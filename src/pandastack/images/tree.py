"""Root images made on the host alone: a Debian tree, declared packages unpacked into it, and one file system of it all.

Nothing of this runs a package's code but Debian's own maintainer scripts. That is right for recipes of the operator;
what a tenant sends is carried out in a machine (``engine/build/root.py`` decides).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import anyio.to_thread

from pandastack.host.processes.run import run
from pandastack.host.tasks import together
from pandastack.images import bootstrap
from pandastack.images.bootstrap import Bootstrap, DebianTree, make_debian_tree, plan_debian
from pandastack.images.cache import Cache, content_key
from pandastack.images.ext4 import e2fsck_arguments, make_ext4, mke2fs_arguments
from pandastack.images.image import DISK, Image, load_image, write_manifest
from pandastack.images.packages import debian, fetch, npm, python, wheels
from pandastack.images.packages.debian import names
from pandastack.images.packages.declared import python_name
from pandastack.images.packages.lock import Lock, NpmPackage, Wheel
from pandastack.images.packages.unpack import Unpacking, unpack_wheels
from pandastack.images.packages.wheels import PYTHON
from pandastack.images.scratch import enter, scratch_tree

_FORMAT = 2

DEBIAN_MB = 512
"""The size of Debian's own disk in MiB; a template's is as large as the template says."""

_DEBIAN_BYTES = 64 * 1024**2
"""The size of the packages of a Debian that no lock describes."""


@dataclass(frozen=True)
class Tree:
    """All that determines a root made on the host. ``requested`` and ``directories`` are names and paths; ``disk_mb``
    is the size of its disk in MiB."""

    debian: Bootstrap
    disk_mb: int = DEBIAN_MB
    wheels: tuple[Wheel, ...] = ()
    requested: tuple[str, ...] = ()
    npm: tuple[NpmPackage, ...] = ()
    directories: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        parts = [
            self.debian.key,
            [asdict(each) for each in self.wheels],
            [asdict(each) for each in self.npm],
            self.requested,
        ]
        disk = [*mke2fs_arguments(Path(), self.disk_mb, "", Path()), *e2fsck_arguments(Path())]
        return content_key("tree", _FORMAT, parts, self.directories, PYTHON.compiles_here, _COPY, disk)

    def with_packages(self, lock: Lock) -> Tree:
        """This tree and what ``lock`` holds; of a package in both, the lock's version."""
        debs = {deb.name: deb for deb in (*self.debian.debs, *lock.debian)}
        return replace(
            self,
            debian=replace(
                self.debian,
                include=tuple(sorted({*self.debian.include, *names(lock.declared.debian)})),
                debs=tuple(debs[name] for name in sorted(debs)),
            ),
            wheels=tuple({wheel.name: wheel for wheel in (*self.wheels, *lock.python)}.values()),
            requested=tuple(sorted({*self.requested, *(python_name(entry)[0] for entry in lock.declared.python)})),
            npm=tuple({package.place: package for package in (*self.npm, *lock.npm)}.values()),
        )

    def with_directories(self, paths: Sequence[str]) -> Tree:
        """This tree and more empty directories."""
        return replace(self, directories=(*self.directories, *paths))


def debian_tree() -> Tree:
    """What ``FROM debian:bookworm`` means."""
    return Tree(plan_debian())


async def make_image(cache: Cache, tree: Tree, report: fetch.Report = bootstrap.silent) -> Image:
    """The image of ``tree``, from the cache or made now. Raises :class:`BuildError`."""
    async with cache.entry("images", tree.key) as entry:
        if not entry.ready:
            await fetch_packages(cache, tree, report)
            async with scratch_tree(_scratch_bytes(cache, tree)) as root:
                base = await _fill(cache, tree, root, report)
                await make_ext4(entry.work / DISK, tree.disk_mb, key=tree.key, source=root, enter=enter())
            facts = {
                "suite": tree.debian.suite,
                "architecture": tree.debian.arch,
                "replaced": base.replaced,
                "python": {wheel.name: wheel.version for wheel in tree.wheels},
                "npm": {package.place: package.version for package in tree.npm},
            }
            write_manifest(entry.work, base.packages, facts)
            entry.commit()
    return load_image(entry.path)


async def fetch_packages(cache: Cache, tree: Tree, report: fetch.Report) -> None:
    """Bring every locked file into the cache. Debian's that are gone are resolved anew when they are installed."""
    wheels = python.downloads(tree.wheels)
    debs = debian.downloads(tree.debian.debs, tree.debian.sources)
    missing = await fetch.fetch(cache, [*debs, *wheels, *npm.downloads(tree.npm)], report)
    gone = [wheel for wheel, file in zip(tree.wheels, wheels, strict=True) if file in missing]
    if gone:
        with fetch.scratch() as directory:
            await python.download_by_pip(gone, tree.debian.arch, directory)
            for file in python.downloads(gone):
                await fetch.add(cache, file, directory / file.name)
    fetch.fetched(cache, npm.downloads(tree.npm))


def _scratch_bytes(cache: Cache, tree: Tree) -> int:
    """A guess at what all files take on the way to an image: archives hold up to five times their size, twice."""
    files = [*python.downloads(tree.wheels), *npm.downloads(tree.npm)]
    archives = sum(path.stat().st_size for path in fetch.fetched(cache, files).values())
    debs = sum(deb.size for deb in tree.debian.debs) or _DEBIAN_BYTES
    return 6 * debs + 10 * archives


async def _fill(cache: Cache, tree: Tree, root: Path, report: fetch.Report) -> DebianTree:
    """Make Debian's tree and unpack the packages beside it at the same time, and copy these into it.

    The copy is made inside the tree's namespace, so that root owns the files there. It overwrites files, and follows no
    link that leads to a directory.
    """
    stage = root.with_name("stage")
    stage.mkdir(mode=0o755)
    base, _ = await together(
        partial(make_debian_tree, cache, tree.debian, root, report), partial(_unpack, cache, tree, stage)
    )
    assert base is not None
    await run([*enter(), "sh", "-ec", _COPY, "sh", stage, root], timeout=600)
    return base


async def _unpack(cache: Cache, tree: Tree, stage: Path) -> None:
    """Unpack each wheel by itself, and the npm packages together. Of a file in two wheels the smaller's is kept."""
    _make_directories(stage / "directories", tree.directories)
    ordered = sorted(tree.wheels, key=lambda wheel: -wheel.size)
    paths = fetch.fetched(cache, python.downloads(ordered))
    await unpack_wheels(
        [
            Unpacking(paths[wheel.file], stage / f"wheel-{index:04}", wheel.name in tree.requested)
            for index, wheel in enumerate(ordered)
        ]
    )
    for package, file in zip(tree.npm, npm.downloads(tree.npm), strict=True):
        path = fetch.fetched(cache, [file])[file.name]
        await anyio.to_thread.run_sync(npm.unpack, package, path, stage / "npm")


_COPY = """
umask 022
find "$1" -newermt @TIME -exec touch -h -d @TIME {} +
for part in "$1"/*/; do
  cp -r --no-dereference --preserve=timestamps "$part." "$2/"
done
""".replace("TIME", str(wheels.TIME))
"""A script that copies the parts of stage $1 into the tree $2. Equal packages make equal trees: nothing keeps the time
of the build. Directories that the tree has keep their modes."""


def _make_directories(stage: Path, paths: Sequence[str]) -> None:
    stage.mkdir(mode=0o755)
    for path in paths:
        (stage / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
