"""A disk with all modules of a kernel, for ``/usr/lib/modules``: made once per kernel and shared by all guests.

Guests mount it read-only, so it costs them neither memory nor disk space, and an image need not know its kernel.
"""

from __future__ import annotations

from pathlib import Path

from pandastack.host.processes.run import run
from pandastack.images.ext4 import make_ext4

DISK = "modules.img"

_BLOCK = 4096
_TABLES_MB = 32
"""Space for the file system's own tables."""


async def make_modules_disk(tree: Path, release: str, target: Path) -> None:
    """Make the disk ``target`` from the unpacked kernel package ``tree``, with the indexes that modprobe reads.

    Equal trees make equal disks. Raises :class:`~pandastack.host.processes.run.CommandError`.
    """
    await run(["depmod", "-b", tree, release], timeout=120)
    library = tree / "lib/modules" / release
    size = sum(path.stat().st_size + _BLOCK for path in library.rglob("*"))
    await make_ext4(target, (size >> 20) + _TABLES_MB, key=f"modules {release}", source=library)
