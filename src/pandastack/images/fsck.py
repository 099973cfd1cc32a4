"""The program that checks a guest's root before the guest mounts it: Debian's static e2fsck.

A machine that was not shut down leaves an ext4 without a journal as a power cut does. Only guests run this program: the
host never reads a file system that a guest has written.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import structlog

from pandastack.errors import BuildError
from pandastack.host.processes.run import run
from pandastack.images.apt import Apt, Package, debian_architecture, private_apt
from pandastack.images.cache import Cache, content_key, file_sha256
from pandastack.images.pins import FSCK, LOCK_FILE, Pin, pin_of

PACKAGE = "e2fsck-static"

_FORMAT = 1
_PROGRAM = "e2fsck"
_log = structlog.get_logger(__name__)


async def fetch_fsck(cache: Cache, *, lock: Path = LOCK_FILE, machine: str | None = None) -> Path:
    """The program for ``machine`` (default: this host's architecture), from the cache or from Debian's mirrors.

    Raises :class:`BuildError` or :class:`~pandastack.host.processes.run.CommandError`.
    """
    arch = debian_architecture(machine)
    pin = pin_of(FSCK, arch, lock)
    async with cache.entry("fsck", content_key("fsck", _FORMAT, pin.sha256)) as entry:
        if not entry.ready:
            await _fetch(pin, arch, entry.work / _PROGRAM)
            entry.commit()
        return entry.path / _PROGRAM


async def find_fsck(apt: Apt, arch: str) -> Package:
    """The mirrors' newest one."""
    found = await apt.show(PACKAGE)
    if found is None:
        raise BuildError(f"the mirrors offer no {PACKAGE} for {arch}", hint="check this host's apt sources")
    return found


async def _fetch(pin: Pin, arch: str, program: Path) -> None:
    async with private_apt(arch) as apt:
        package = await apt.show(pin.package, pin.version)
        if package is None:
            package = await find_fsck(apt, arch)
            _log.warning("fsck.pin_gone", pinned=pin.version, taken=package.version, sha256=package.sha256)
        elif package.sha256 != pin.sha256:
            raise BuildError(f"{package.name} {package.version} of the mirror is not the pinned file")
        with tempfile.TemporaryDirectory(prefix="pandastack-fsck-") as scratch:
            archive = await apt.download(package, Path(scratch))
            if (actual := file_sha256(archive)) != package.sha256:
                raise BuildError(f"{archive.name} is damaged: SHA-256 {actual}, expected {package.sha256}")
            await run(["dpkg-deb", "-x", archive, Path(scratch) / "tree"], timeout=60)
            shutil.copyfile(Path(scratch) / "tree/sbin/e2fsck.static", program)
