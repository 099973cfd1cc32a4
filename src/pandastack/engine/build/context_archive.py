"""A recipe that arrives as a tar archive: unpacked into a folder of its own, or refused."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pandastack.errors import BadRequestError, TooLargeError

ARCHIVE_MAX = 256 * 1024 * 1024
"""The largest archive in bytes, and the most that its files may add up to."""

MEMBERS_MAX = 50_000


def unpack(archive: IO[bytes], folder: Path) -> Path:
    """Unpack the tar (plain or gzip) into the empty ``folder``. Returns the recipe's place: that folder, or the only
    folder in it.

    Members are hostile: names and links that lead outside, devices, and archives that unpack to more than
    :data:`ARCHIVE_MAX` are refused with :class:`BadRequestError` or :class:`TooLargeError`. Blocking.
    """
    try:
        with tarfile.open(fileobj=archive, mode="r:*") as tar:
            tar.extractall(folder, members=_bounded(tar), filter="data")
    except (tarfile.TarError, EOFError, OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadRequestError(f"recipe: not a usable tar archive: {error}", field="recipe") from error
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink() else folder


def _bounded(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    total = 0
    for count, member in enumerate(tar):
        total += max(member.size, 0)
        if count >= MEMBERS_MAX or total > ARCHIVE_MAX:
            raise TooLargeError("recipe: the archive unpacks to too many bytes", field="recipe")
        yield member
