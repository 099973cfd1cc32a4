"""What COPY puts where: Docker's rules for sources and destination, and the tar stream that carries the files
to the guest."""

from __future__ import annotations

import io
import posixpath
import re
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pandastack.errors import BadRequestError
from pandastack.images.context import Context, ContextFile

EXTRACT = ("tar", "--extract", "--file=-", "--directory=/", "--keep-directory-symlink", "--no-overwrite-dir")
"""How the guest unpacks :meth:`Placed.write_tar`: links that stand for folders (``/bin``) stay, folders keep
their mode."""

_TIME = 946684800
"""2000-01-01: all copied files get one time, so that equal contexts make equal images."""

_ARCHIVE_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")


@dataclass(frozen=True)
class Placed:
    """One file, folder or link at its absolute place in the guest."""

    target: str
    source: Path
    kind: str
    permissions: int
    digest: str


def place(
    context: Context,
    sources: tuple[str, ...],
    destination: str,
    *,
    directories: Collection[str],
    add: bool = False,
) -> tuple[Placed, ...]:
    """The files that a COPY of ``sources`` to ``destination`` (absolute) makes.

    The destination is a folder when it ends with ``/``, when there are several sources, or when it is one of
    the known ``directories``; else it is the file's new name. A folder's *contents* are copied. Raises
    :class:`BadRequestError`.
    """
    names = [name for source in sources for name in context.find(source)]
    target = posixpath.normpath(destination)
    into = destination.endswith(("/", "/.")) or target in directories
    if len(names) > 1 and not destination.endswith(("/", "/.")) and target not in directories:
        raise BadRequestError(
            f"several sources need a folder as destination: {destination}", hint="end the destination with /"
        )
    placed: dict[str, Placed] = {}
    for name in names:
        for item in _place_one(context, name, target, into=into, add=add):
            placed[item.target] = item
    return tuple(placed[target] for target in sorted(placed))


def _place_one(context: Context, name: str, target: str, *, into: bool, add: bool) -> Iterator[Placed]:
    source = context.source(name)
    if source.kind == "directory":
        yield from (_placed(posixpath.join(target, below), member) for below, member in context.below(source))
        return
    if add and _is_archive(source.path):
        raise BadRequestError(
            f"ADD would unpack the archive {name}, which is not supported", hint="COPY it and RUN tar -xf"
        )
    yield _placed(posixpath.join(target, posixpath.basename(name)) if into else target, source)


def _placed(target: str, member: ContextFile) -> Placed:
    return Placed(target, member.path, member.kind, member.permissions, member.digest)


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(512)
    return head.startswith(_ARCHIVE_MAGIC) or head[257:262] == b"ustar"


@dataclass(frozen=True)
class Ownership:
    """The numeric or named user and group of copied files; names are looked up by the guest's tar."""

    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""

    @classmethod
    def parse(cls, text: str) -> Ownership:
        """``user[:group]``, each a name or a number; without a group the user's number or name stands for it
        too."""
        if not text:
            return cls()
        user, _, group = text.partition(":")
        for part in (user, group or user):
            if not re.fullmatch(r"[0-9]{1,10}|[A-Za-z_][A-Za-z0-9_.-]*\$?", part):
                raise BadRequestError(f"--chown={text} is not user[:group]")
        group = group or user
        return cls(
            int(user) if user.isdigit() else 0,
            int(group) if group.isdigit() else 0,
            "" if user.isdigit() else user,
            "" if group.isdigit() else group,
        )


def write_tar(files: tuple[Placed, ...], owner: Ownership, permissions: int | None, into: IO[bytes]) -> None:
    """Write ``files`` as a tar stream, names relative to ``/``; ``permissions`` replaces those of files and
    folders."""
    with tarfile.open(fileobj=into, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for item in files:
            header = _header(item, owner, permissions)
            if item.kind == "file":
                with item.source.open("rb") as data:
                    header.size = item.source.stat().st_size
                    tar.addfile(header, data)
            else:
                tar.addfile(header)


def tar_bytes(files: tuple[Placed, ...], owner: Ownership, permissions: int | None) -> bytes:
    """:func:`write_tar` in memory."""
    buffer = io.BytesIO()
    write_tar(files, owner, permissions, buffer)
    return buffer.getvalue()


def _header(item: Placed, owner: Ownership, permissions: int | None) -> tarfile.TarInfo:
    header = tarfile.TarInfo(item.target.lstrip("/"))
    header.mtime = _TIME
    header.mode = item.permissions if permissions is None else permissions
    header.uid, header.gid, header.uname, header.gname = owner.uid, owner.gid, owner.user, owner.group
    if item.kind == "directory":
        header.type = tarfile.DIRTYPE
    elif item.kind == "link":
        header.type, header.linkname, header.mode = tarfile.SYMTYPE, item.digest, 0o777
    return header
