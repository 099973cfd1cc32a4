"""Root file systems: ext4 in a sparse raw file, empty or made from a directory.

The function is the whole border between those who make a tree of files and those who run it: nothing else knows which
file system guests have. It runs mke2fs and e2fsck on the host, so it is only for trees that no guest has written.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from pandastack.host import files
from pandastack.host.processes.run import CommandError, describe_status, run

FEATURES = (
    "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,huge_file,large_file,resize_inode,"
    "sparse_super,uninit_bg"
)
"""No journal: a sandbox's disk does not survive a crash of its host, and a copy is always taken while nothing writes.
``uninit_bg`` tells how much of an inode table was ever used: the agent reads only that.
"""

GROWS_TO_MB = 1024 * 1024
"""The size up to which the file system can grow while it is mounted, in MiB."""

EPOCH = 1686355200
"""2023-06-10, Debian 12's release: the time of all that mke2fs itself writes, so that equal trees make equal disks."""

_BLOCK = 4096
_FIXED = 0, 1
"""The exit statuses of e2fsck for a file system that is fine, or has just been put in order."""


def mke2fs_arguments(target: Path, size_mb: int, key: str, source: Path | None = None) -> tuple[str, ...]:
    """The argv that makes a file system of ``size_mb`` MiB in the file ``target``; its UUID follows from ``key``.

    ``source`` is the directory that it has the files of: with owners, times and extended attributes.
    """
    identity = str(uuid.uuid5(uuid.NAMESPACE_OID, key))
    resize = GROWS_TO_MB * (1024 * 1024 // _BLOCK) - 1
    return (
        *("env", "MKE2FS_CONFIG=/dev/null", f"E2FSPROGS_FAKE_TIME={EPOCH}"),
        *("mke2fs", "-q", "-F", "-b", str(_BLOCK), "-I", "256", "-i", "16384", "-m", "0", "-O", FEATURES),
        *("-U", identity, "-E", f"hash_seed={identity},lazy_itable_init=0,resize={resize},root_owner=0:0"),
        *(("-d", str(source)) if source else ()),
        *(str(target), f"{size_mb}M"),
    )


def e2fsck_arguments(target: Path) -> tuple[str, ...]:
    """The argv that gives every directory its index. mke2fs makes none, and the guest would search large ones whole."""
    return ("env", f"E2FSPROGS_FAKE_TIME={EPOCH}", "e2fsck", "-f", "-y", "-D", str(target))


async def make_ext4(
    target: Path, size_mb: int, *, key: str = "", source: Path | None = None, enter: Sequence[str] = ()
) -> None:
    """Make the file system ``target`` of ``size_mb`` MiB, empty or with the files of the directory ``source``.

    The file is sparse. ``enter`` is the argv that the tools run under (a user namespace, say). Raises
    :class:`~pandastack.host.processes.run.CommandError` when the files do not fit.
    """
    files.make_sparse(target, size_mb * 1024 * 1024)  # mke2fs leaves holes in a file that is there
    await run([*enter, *mke2fs_arguments(target, size_mb, key, source)], timeout=600)
    if source is not None:
        argv = [*enter, *e2fsck_arguments(target)]
        done = await run(argv, timeout=600, check=False)
        if done.returncode not in _FIXED:
            raise CommandError(argv, describe_status(done.returncode), done.stdout)
