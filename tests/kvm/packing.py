"""What goes into the host in a box: this package with its dependencies, the finished build and kernel modules."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from pandastack.host.processes.run import run
from pandastack.images.actions import DirectoryAction
from pandastack.images.apt import debian_architecture, private_apt
from pandastack.images.cache import Cache, content_key
from pandastack.images.pins import KERNEL, pin_of
from pandastack.images.plan import plan
from pandastack.images.template import load_template
from pandastack.images.tree import debian_tree, make_image
from pandastack.images.vmlinux import find_modules, load_order, module_depends, module_name

ROOT = Path(__file__).parents[2]
MODULES = ("kvm_amd", "loop", "xfs")
TEST_TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis")


def needed_distributions() -> dict[str, Distribution]:
    """The installed packages that the server and its tests import, by name."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement("pandastack[server]"), *(Requirement(name) for name in TEST_TOOLS)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        if (key := (wanted.name.lower(), frozenset(wanted.extras))) in seen:
            continue
        seen.add(key)
        try:
            there = distribution(wanted.name)
        except PackageNotFoundError:
            continue
        found[wanted.name.lower()] = there
        for text in there.requires or ():
            each = Requirement(text)
            if not each.marker or any(each.marker.evaluate({"extra": extra}) for extra in (*wanted.extras, "")):
                waiting.append(each)
    found.pop("pandastack", None)
    return found


def pack_program(archive: tarfile.TarFile) -> None:
    """``site`` with the packages, ``src``, ``tests`` and what else a checkout needs to run its tests."""
    for each in needed_distributions().values():
        for file in each.files or ():
            if ".." not in file.parts and each.locate_file(file).exists():
                archive.add(each.locate_file(file), f"site/{file}", recursive=False)
    for name in ("src", "tests", "templates", "pyproject.toml"):
        archive.add(ROOT / name, f"checkout/{name}", filter=_without_examples)


def _without_examples(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if ".hypothesis" in member.name else member


def pack_build(archive: tarfile.TarFile, cache: Path) -> None:
    """What a bake of a template reads from the cache besides images, so that nothing is fetched in the box."""
    for kind in ("kernels", "kernel-choices", "initramfs", "fsck"):
        for entry in sorted((cache / kind).iterdir()):
            if entry.is_dir():
                archive.add(entry, f"cache/{kind}/{entry.name}")


def append_images(archive: Path, cache: Path, keys: Iterable[str]) -> None:
    """Add images to a closed archive, without the holes of their disks."""
    names = [f"images/{key}" for key in keys]
    argv = ["tar", "--append", "--sparse", "--transform=s,^,cache/,", f"--file={archive}", f"--directory={cache}"]
    subprocess.run([*argv, *names], check=True)


def pack_text(archive: tarfile.TarFile, name: str, text: bytes) -> None:
    """One small file."""
    member = tarfile.TarInfo(name)
    member.size = len(text)
    archive.addfile(member, io.BytesIO(text))


async def image_keys(cache: Cache, template: Path) -> list[str]:
    """The images that the template in this folder is made of."""
    recipe = load_template(template)
    assert recipe.lock is not None
    planned = plan(recipe.dockerfile, recipe.context, parent_key="")
    directories = [action.path for action in planned.actions if isinstance(action, DirectoryAction)]
    tree = debian_tree().with_packages(recipe.lock).with_directories(directories)
    return [(await make_image(cache, replace(tree, disk_mb=recipe.settings.disk_mb))).key]


async def kernel_modules(cache: Cache) -> list[Path]:
    """The modules of the guests' kernel that a host needs, in load order, from Debian's package of that kernel."""
    pin = pin_of(KERNEL, debian_architecture())
    async with cache.entry("host-modules", content_key("host-modules", pin.sha256, MODULES)) as entry:
        if not entry.ready:
            async with private_apt(debian_architecture()) as apt:
                package = await apt.show(pin.package, pin.version)
                assert package is not None, f"the mirror has no {pin.package} {pin.version}"
                with tempfile.TemporaryDirectory() as scratch:
                    await run(["dpkg-deb", "-x", await apt.download(package, Path(scratch)), f"{scratch}/tree"])
                    _copy_modules(next(Path(scratch).glob("tree/lib/modules/*")), entry.work)
            entry.commit()
        order = (entry.path / "order").read_text().split()
        return [entry.path / f"{name}.ko" for name in order]


def _copy_modules(library: Path, into: Path) -> None:
    builtin = {module_name(line) for line in (library / "modules.builtin").read_text().split()}
    files = find_modules(library)
    order = load_order(MODULES, builtin, lambda name: module_depends(files[name].read_bytes()))
    for name in order:
        shutil.copyfile(files[name], into / f"{name}.ko")
    (into / "order").write_text("\n".join(order))
