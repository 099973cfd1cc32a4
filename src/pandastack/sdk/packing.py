"""Packs a recipe's folder into the archive that a build accepts."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from pandastack.errors import BadRequestError, TooLargeError

RECIPE_BYTES_MAX = 256 * 1024 * 1024


def pack_recipe(folder: str | os.PathLike[str]) -> bytes:
    """A tar archive with ``folder`` as its only entry: names, modes and contents, without owners and times.

    Raises BadRequestError when the folder has no Dockerfile, TooLargeError when it is over 256 MiB.
    """
    root = Path(folder).resolve()
    if not (root / "Dockerfile").is_file():
        raise BadRequestError(f"{root} has no Dockerfile", field="folder")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, str(path.relative_to(root.parent)), recursive=False, filter=_anonymous)
            if archive.tell() > RECIPE_BYTES_MAX:
                raise TooLargeError(f"{root} is larger than {RECIPE_BYTES_MAX >> 20} MiB", field="folder")
    return archive.getvalue()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if not (member.isfile() or member.isdir() or member.issym()):
        return None
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member
