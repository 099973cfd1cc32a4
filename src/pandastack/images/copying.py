"""What COPY puts where: Docker's rules for sources and destination, and the tar stream that carries the files
to the guest."""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pandastack.errors import BadRequestError
from pandastack.images.context import Context, ContextFile

EXTRACT = ("tar", "--extract", "--file=-", "--directory=/", "--keep-directory-symlink", "--no-overwrite-dir")
"""How the guest unpacks :meth:`Placed.write_tar`: links that stand for folders (``/bin``) stay, folders keep
their mode."""

OWNER_BY_NUMBER = r"""
numbers_of() {
  while IFS=: read -r name _ first second _ || [ -n "$name" ]; do
    [ "$name" = "$3" ] || continue
    echo "+$first +$second"
    return
  done <"$2"
  echo "no such $1: $3 (--chown takes a name that the image knows, or a number)" >&2
  exit 1
}
case $owner in
  '' | +*) own=$owner ;;
  *)
    own=$(numbers_of user /etc/passwd "$owner")
    owner=${own% *} own=${own#* }
    ;;
esac
case $group in
  '') group=$own ;;
  +*) ;;
  *)
    group=$(numbers_of group /etc/group "$group")
    group=${group% *}
    ;;
esac
"""
"""Part of programs for the guest, in any shell: turn the names of the variables ``owner`` and ``group`` into numbers
after ``+``. Without a group it is the user's own, or the user's number. A name that the image does not know ends the
program."""

OWNER_NUMBERS = f'set -eu\nowner=$1 group=$2\n{OWNER_BY_NUMBER}echo "$owner $group"\n'
"""Write both numbers for the names of an :class:`Ownership`."""

_TIME = 946684800
"""2000-01-01: all copied files get one time, so that equal contexts make equal images."""


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
    names: Sequence[str],
    destination: str,
    *,
    directories: Collection[str],
) -> tuple[Placed, ...]:
    """The files that a COPY of the members ``names`` to ``destination`` (absolute) makes.

    The destination is a folder when it ends with ``/``, when there are several sources, or when it is one of
    the known ``directories``; else it is the file's new name. A folder's *contents* are copied. Raises
    :class:`BadRequestError`.
    """
    target = posixpath.normpath(destination)
    into = destination.endswith(("/", "/.")) or target in directories
    placed: dict[str, Placed] = {}
    for name in names:
        for item in _place_one(context, name, target, into=into):
            placed[item.target] = item
    return tuple(placed[target] for target in sorted(placed))


def refuse_single(names: Sequence[str], destination: str, directories: Collection[str]) -> None:
    """Raise :class:`BadRequestError` for several sources and a destination that is not known to be a folder."""
    if len(names) > 1 and not destination.endswith(("/", "/.")) and posixpath.normpath(destination) not in directories:
        raise BadRequestError(
            f"several sources need a folder as destination: {destination}", hint="end the destination with /"
        )


def _place_one(context: Context, name: str, target: str, *, into: bool) -> Iterator[Placed]:
    source = context.source(name)
    if source.kind == "directory":
        yield from (_placed(posixpath.join(target, below), member) for below, member in context.below(source))
        return
    yield _placed(posixpath.join(target, posixpath.basename(name)) if into else target, source)


def _placed(target: str, member: ContextFile) -> Placed:
    return Placed(target, member.path, member.kind, member.permissions, member.digest)


@dataclass(frozen=True)
class Ownership:
    """The numeric or named user and group of copied files. Names are looked up in the guest; a user's name alone
    stands for the user's own group too."""

    uid: int = 0
    gid: int | None = 0
    user: str = ""
    group: str = ""

    @property
    def words(self) -> tuple[str, str]:
        """User and group for a program in the guest: a name, or a number after ``+``; no group: the user's own."""
        return self.user or f"+{self.uid}", self.group or ("" if self.gid is None else f"+{self.gid}")

    @property
    def named(self) -> bool:
        """Whether only the guest knows the numbers."""
        return bool(self.user or self.group)

    @classmethod
    def parse(cls, text: str) -> Ownership:
        """``user[:group]``, each a name or a number; without a group a user's number stands for it too."""
        if not text:
            return cls()
        user, _, group = text.partition(":")
        for part in (user, group or user):
            if not re.fullmatch(r"[0-9]{1,10}|[A-Za-z_][A-Za-z0-9_.-]*\$?", part):
                raise BadRequestError(f"--chown={text} is not user[:group]")
        uid, name = (int(user), "") if user.isdigit() else (0, user)
        if not group:
            return cls(uid, None if name else uid, name)
        return cls(uid, int(group), name) if group.isdigit() else cls(uid, 0, name, group)


def write_tar(files: tuple[Placed, ...], owner: Ownership, permissions: int | None, into: IO[bytes]) -> None:
    """Write ``files`` as a tar stream, names relative to ``/``, owned by the numbers of ``owner``; ``permissions``
    replaces those of files and folders."""
    with tarfile.open(fileobj=into, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for item in files:
            header = _header(item, owner, permissions)
            if item.kind == "file":
                with item.source.open("rb") as data:
                    header.size = item.source.stat().st_size
                    tar.addfile(header, data)
            else:
                tar.addfile(header)


def _header(item: Placed, owner: Ownership, permissions: int | None) -> tarfile.TarInfo:
    header = tarfile.TarInfo(item.target.lstrip("/"))
    header.mtime = _TIME
    header.mode = item.permissions if permissions is None else permissions
    assert not owner.named and owner.gid is not None
    header.uid, header.gid = owner.uid, owner.gid
    if item.kind == "directory":
        header.type = tarfile.DIRTYPE
    elif item.kind == "link":
        header.type, header.linkname, header.mode = tarfile.SYMTYPE, item.digest, 0o777
    return header
