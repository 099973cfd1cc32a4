"""The guest's first file system: the agent as ``/init`` and the modules that it loads to reach its root."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path

from pandastack.errors import BuildError
from pandastack.host.facts import program
from pandastack.host.processes.run import run
from pandastack.images import cpio
from pandastack.images.cache import Cache, content_key
from pandastack.images.kernel import Kernel

_FORMAT = 1


def contents(agent: bytes, modules: Sequence[tuple[str, bytes]]) -> bytes:
    """The uncompressed archive. ``modules`` (file name, bytes) stand in ``/modules``; ``/modules.list`` has
    their names in load order, one per line. ``/dev/console`` must exist before anything can make it: the
    kernel opens it for init."""
    members = [
        cpio.directory("dev"),
        cpio.character_device("dev/console", 5, 1),
        cpio.directory("modules"),
        cpio.file("init", agent, 0o755),
        cpio.file("modules.list", "".join(f"{name}\n" for name, _ in modules).encode()),
        *(cpio.file(f"modules/{name}", data) for name, data in modules),
    ]
    return cpio.archive(members)


async def build_initramfs(agent: Path, kernel: Kernel, cache: Cache) -> Path:
    """The compressed initramfs for this agent and kernel, from the cache or made now (well under a
    second)."""
    archive = _read(agent, kernel)
    key = content_key("initramfs", _FORMAT, hashlib.sha256(archive).hexdigest())
    async with cache.entry("initramfs", key) as entry:
        if not entry.ready:
            (entry.work / "initramfs").write_bytes(await _compress(archive))
            entry.commit()
    return entry.path / "initramfs"


def checked_initramfs(initramfs: Path, fsck: Path) -> bytes:
    """``initramfs`` with a program that checks the root before it is mounted, for machines that were not shut down.

    It stands before the other, uncompressed: the kernel unpacks one archive after the other.
    """
    return cpio.archive([cpio.file("e2fsck", fsck.read_bytes(), 0o755)]) + initramfs.read_bytes()


def _read(agent: Path, kernel: Kernel) -> bytes:
    try:
        return contents(agent.read_bytes(), [(path.name, path.read_bytes()) for path in kernel.modules])
    except OSError as error:
        raise BuildError(f"the initramfs cannot be made: {error}") from error


async def _compress(archive: bytes) -> bytes:
    """zstd unpacks fastest in an emulated guest; Debian's kernels know gzip as well, which needs no tool."""
    if program("zstd"):
        return (await run(["zstd", "-19", "-q", "-c"], input=archive, timeout=120)).stdout
    return gzip.compress(archive, mtime=0)
