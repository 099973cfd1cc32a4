"""The guest's kernel: Debian's cloud kernel, fetched by apt as a file, checked against a pin, unpacked and
cached.

``debian.lock`` pins version and SHA-256. A mirror drops superseded versions: then apt's signed candidate is
taken, a warning says so, and :class:`Kernel` carries what was really used, for manifests.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from pandastack.errors import BuildError
from pandastack.host.processes.run import run
from pandastack.images.apt import Apt, Package, debian_architecture, private_apt
from pandastack.images.cache import Cache, content_key, file_sha256
from pandastack.images.modules import DISK, make_modules_disk
from pandastack.images.pins import KERNEL, LOCK_FILE, Pin, pin_of
from pandastack.images.vmlinux import find_modules, load_order, module_depends, module_name, uncompress

MODULES = ("virtio_mmio", "virtio_blk", "virtio_console", "virtio_net", "tcp_diag")
"""The modules that the guest needs before its root and the other modules are mounted; ext4 is built in. The last one
lets the agent abort connections. Their own dependencies are read from the modules."""

_FORMAT = 2
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Kernel:
    """A kernel ready to boot.

    ``version`` is Debian's (``6.1.192-2``), ``release`` what ``uname -r`` says, ``sha256`` that of the
    package file; ``modules`` are in load order, ``modules_disk`` has all that there are. ``pinned`` is false when the
    pin was gone and apt's candidate took its place.
    """

    version: str
    release: str
    sha256: str
    vmlinux: Path
    modules: tuple[Path, ...]
    modules_disk: Path
    modules_sha256: str
    pinned: bool = True

    @property
    def manifest(self) -> dict[str, object]:
        """What a template's manifest records of it."""
        return {
            "version": self.version,
            "release": self.release,
            "sha256": self.sha256,
            "pinned": self.pinned,
        }


async def fetch_kernel(cache: Cache, *, lock: Path = LOCK_FILE, machine: str | None = None) -> Kernel:
    """The kernel for ``machine`` (default: this host's architecture), from the cache or from Debian's
    mirrors.

    Raises :class:`BuildError` or :class:`~pandastack.host.processes.run.CommandError`.
    """
    arch = debian_architecture(machine)
    pin = pin_of(KERNEL, arch, lock)
    if found := cache.find("kernels", _content_name(pin.sha256)):
        return _load(found, pin)
    name = content_key("kernel-choice", _FORMAT, asdict(pin))
    async with cache.entry("kernel-choices", name) as choice:
        if choice.ready:
            sha256 = (choice.path / "sha256").read_text()
            if found := cache.find("kernels", _content_name(sha256)):
                return _load(found, pin)
        path = await _obtain(cache, arch, pin)
        kernel = _load(path, pin)
        if not choice.ready:
            (choice.work / "sha256").write_text(kernel.sha256)
            choice.commit()
        return kernel


async def _obtain(cache: Cache, arch: str, pin: Pin) -> Path:
    """Download the pinned package, or its successor, and make its cache entry."""
    async with private_apt(arch) as apt:
        package = await apt.show(pin.package, pin.version)
        if package is None:
            package = await find_kernel(apt, arch)
            _log.warning("kernel.pin_gone", pinned=pin.version, taken=package.version, sha256=package.sha256)
        elif package.sha256 != pin.sha256:
            raise BuildError(
                f"{package.name} {package.version} of the mirror is not the pinned file: "
                f"SHA-256 {package.sha256}, pinned {pin.sha256}"
            )
        async with cache.entry("kernels", _content_name(package.sha256)) as entry:
            if not entry.ready:
                with tempfile.TemporaryDirectory(prefix="pandastack-kernel-") as scratch:
                    archive = await apt.download(package, Path(scratch))
                    await _unpack(archive, package, Path(scratch) / "tree", entry.work)
                entry.commit()
        return entry.path


async def find_kernel(apt: Apt, arch: str) -> Package:
    """The newest kernel image that the metapackage of ``arch`` depends on."""
    meta = f"linux-image-cloud-{arch}"
    found = await apt.show(meta)
    for name in found.depends if found else ():
        if name.startswith("linux-image-") and (package := await apt.show(name)):
            return package
    raise BuildError(f"the mirrors offer no {meta}", hint="check this host's apt sources")


async def _unpack(archive: Path, package: Package, tree: Path, into: Path) -> None:
    if (actual := file_sha256(archive)) != package.sha256:
        raise BuildError(f"{archive.name} is damaged: SHA-256 {actual}, expected {package.sha256}")
    await run(["dpkg-deb", "-x", archive, tree], timeout=300)
    image = next((tree / "boot").glob("vmlinuz-*"), None)
    if image is None:
        raise BuildError(f"{archive.name} holds no kernel")
    release = image.name.removeprefix("vmlinuz-")
    (into / "vmlinux").write_bytes(await uncompress(image.read_bytes()))
    library = tree / "lib/modules" / release
    order = _copy_modules(library, into / "modules")
    await make_modules_disk(tree, release, into / DISK)
    facts = {
        "version": package.version,
        "release": release,
        "sha256": package.sha256,
        "modules": order,
        "modules_sha256": file_sha256(into / DISK),
    }
    (into / "kernel.json").write_text(json.dumps(facts, indent=1))


def _copy_modules(library: Path, into: Path) -> tuple[str, ...]:
    builtin = {module_name(line) for line in (library / "modules.builtin").read_text().split()}
    files = find_modules(library)

    def depends(name: str) -> tuple[str, ...]:
        if name not in files:
            raise BuildError(f"the kernel has no module {name}")
        return module_depends(files[name].read_bytes())

    order = load_order(MODULES, builtin, depends)
    into.mkdir()
    for name in order:
        shutil.copyfile(files[name], into / f"{name}.ko")
    return order


def _content_name(sha256: str) -> str:
    """An entry's name follows from the package's content and from what is taken out of it."""
    return content_key("kernel", _FORMAT, sha256, MODULES)


def _load(path: Path, pin: Pin) -> Kernel:
    facts = json.loads((path / "kernel.json").read_text())
    modules = tuple(path / "modules" / f"{name}.ko" for name in facts["modules"])
    pinned = facts["sha256"] == pin.sha256
    return Kernel(
        version=facts["version"],
        release=facts["release"],
        sha256=facts["sha256"],
        vmlinux=path / "vmlinux",
        modules=modules,
        modules_disk=path / DISK,
        modules_sha256=facts["modules_sha256"],
        pinned=pinned,
    )
