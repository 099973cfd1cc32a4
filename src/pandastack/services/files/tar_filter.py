"""Makes any tar archive safe to unpack, as a stream.

Every header is read strictly and written anew: names are relative and stay below the directory that the archive is
unpacked in, also by way of links, nothing is a device, no file is set-uid, root owns everything. A member that cannot
be made safe is refused. What honest directories contain and an archive cannot carry safely (links that lead outside,
pipes, devices) is left out and reported at the end of the archive, unless it is to be refused too.
Input formats: POSIX.1-1988 (ustar), POSIX.1-2001 (pax) and GNU's long names. Output format: pax.
"""

from __future__ import annotations

import json
import re
import tarfile
import unicodedata
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from pandastack.errors import BadRequestError

BLOCK = tarfile.BLOCKSIZE
MOST_MEMBERS = 200_000
_MOST_NAME = 4096  # bytes; Linux PATH_MAX
_MOST_PART = 255  # bytes; NAME_MAX
_MOST_EXTRA = 256 * 1024  # bytes of a pax or GNU header
_MOST_SIZE = 1 << 43
_ZEROS = bytes(BLOCK)
_PAX_RECORD = re.compile(rb"(\d{1,7}) ([^=]+)=")
_KINDS = {
    tarfile.REGTYPE: tarfile.REGTYPE,
    tarfile.AREGTYPE: tarfile.REGTYPE,
    tarfile.CONTTYPE: tarfile.REGTYPE,
    tarfile.DIRTYPE: tarfile.DIRTYPE,
    tarfile.SYMTYPE: tarfile.SYMTYPE,
    tarfile.LNKTYPE: tarfile.LNKTYPE,
}
_MOST_REPORTED = 32 * 1024  # characters of names
_EXTRA = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}


class Outside(StrEnum):
    """What becomes of symbolic links that lead out of the directory. Nothing is ever unpacked through a link."""

    KEEP = "keep"
    SKIP = "skip"
    REFUSE = "refuse"


class TarFilter:
    """Takes an archive piece by piece; raises :class:`BadRequestError` at the first member that is refused."""

    def __init__(self, outside: Outside = Outside.REFUSE) -> None:
        self._outside = outside
        self._buffer = bytearray()
        self._payload = 0  # bytes of the current member still to come, without padding
        self._padding = 0
        self._extra: tuple[bytes, int] | None = None
        self._overrides: dict[str, str] = {}
        self._files: set[str] = set()
        self._links = Links()
        self._report = _Report()
        self._top = tarfile.TarInfo(".")
        self._top.type, self._top.mode = tarfile.DIRTYPE, 0o755
        self.members = 0
        self.ended = False

    @property
    def skipped(self) -> int:
        """How many members were left out."""
        return self._report.count

    def feed(self, data: bytes) -> bytes:
        """The part of the archive that can be passed on so far."""
        self._buffer += data
        return b"".join(self._pieces())

    def end(self) -> None:
        """Note the end of the input. Raises :class:`BadRequestError` when the archive is incomplete."""
        if not self.ended:
            begun = self.members or self._buffer
            raise BadRequestError("the tar archive ends too early" if begun else "not a tar archive: it is empty")

    def _pieces(self) -> Iterator[bytes]:
        while not self.ended:
            if self._payload or self._padding:
                if not self._buffer:
                    return
                yield self._take_payload()
            elif self._extra is not None:
                kind, size = self._extra
                whole = size + -size % BLOCK
                if len(self._buffer) < whole:
                    return
                self._take_extra(kind, bytes(self._buffer[:size]))
                del self._buffer[:whole]
                self._extra = None
            else:
                if len(self._buffer) < BLOCK:
                    return
                block = bytes(self._buffer[:BLOCK])
                del self._buffer[:BLOCK]
                yield self._take_header(block)
        self._buffer.clear()  # bytes after the end mark mean nothing

    def _take_payload(self) -> bytes:
        """File content as it is, and zeros in place of the padding."""
        data = bytes(self._buffer[: self._payload])
        del self._buffer[: len(data)]
        self._payload -= len(data)
        if self._payload:
            return data
        zeros = min(self._padding, len(self._buffer))
        del self._buffer[:zeros]
        self._padding -= zeros
        return data + bytes(zeros)

    def _take_header(self, block: bytes) -> bytes:
        if block == _ZEROS:
            self.ended = True
            return self._report.member(self._top) + 2 * _ZEROS
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise BadRequestError(f"not a tar archive: {error}") from error
        if info.type in _EXTRA:
            if not 0 <= info.size <= _MOST_EXTRA:
                raise BadRequestError("the tar archive has a header that is too long")
            self._extra = info.type, info.size
            return b""
        return self._take_member(info)

    def _take_extra(self, kind: bytes, content: bytes) -> None:
        if kind == tarfile.XHDTYPE:
            self._overrides |= pax_records(content)
        elif kind == tarfile.GNUTYPE_LONGNAME:
            self._overrides["path"] = _text(content)
        elif kind == tarfile.GNUTYPE_LONGLINK:
            self._overrides["linkpath"] = _text(content)
        # Global headers carry things like a commit id; none of them is passed on.

    def _take_member(self, info: tarfile.TarInfo) -> bytes:
        overrides, self._overrides = self._overrides, {}
        name = overrides.get("path", info.name)
        size = overrides.get("size", str(info.size))
        if any(key.startswith("GNU.sparse") for key in overrides):
            raise refusal(name, "a sparse file", "make the archive without --sparse")
        if not re.fullmatch("[0-9]{1,18}", size) or int(size) > _MOST_SIZE:
            raise refusal(name, "of an invalid size")
        self.members += 1
        if self.members > MOST_MEMBERS:
            raise BadRequestError(f"the tar archive has more than {MOST_MEMBERS} members")
        kind = _KINDS.get(info.type)
        if kind is None:
            if self._outside is Outside.REFUSE or int(size):
                raise refusal(name, "neither a file, a directory nor a link", "links=skip omits it")
            return self._skip("/".join(_parts(name) or [name]))
        made = tarfile.TarInfo(self._safe_name(name, kind) or ".")
        made.type, made.mode = kind, info.mode & 0o777
        made.mtime = min(max(int(info.mtime), 0), 1 << 33)
        if kind == tarfile.REGTYPE:
            made.size = self._payload = int(size)
            self._padding = -made.size % BLOCK
            self._files.add(made.name)
        elif int(size) and kind != tarfile.LNKTYPE:  # writers may record the size of a hard link's target
            raise refusal(name, "not a file, but has content")
        elif kind != tarfile.DIRTYPE and not self._link(made, overrides.get("linkpath", info.linkname)):
            return self._skip(made.name)
        if made.name == ".":
            self._top = made
        return made.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")

    def _skip(self, name: str) -> bytes:
        self._report.add(name)
        return b""

    def _safe_name(self, name: str, kind: bytes) -> str:
        """``name`` relative to the directory, never through a link of this archive; empty for the directory itself."""
        parts = _parts(name)
        if parts is None:
            raise refusal(name, "outside the directory")
        if not parts and kind != tarfile.DIRTYPE:
            raise refusal(name, "without a name")
        if self._links.lead(parts):
            raise refusal(name, "behind a link in the same archive")
        return "/".join(parts)

    def _link(self, made: tarfile.TarInfo, target: str) -> bool:
        """Set the target of ``made``. False when it points outside and is skipped."""
        if made.type == tarfile.LNKTYPE:
            inside = _parts(target)
            found = None if inside is None else "/".join(inside)
            fits, made.linkname = found in self._files, found or ""
        else:
            made.linkname = target
            fits = _stays_inside(made.name.split("/")[:-1], target)
            fits = fits or (self._outside is Outside.KEEP and _is_target(target))
        if not fits and self._outside is Outside.REFUSE:
            what = f"a link that points outside the archive, to {target[:100]!r}"
            raise refusal(made.name, what, "links=skip omits such links")
        if fits and made.type == tarfile.SYMTYPE:
            self._links.add(made.name.split("/"))
        elif fits:
            self._files.add(made.name)
        return fits


class _Report:
    """What was left out. Readers learn it from the archive itself, whose length nobody knows when it begins."""

    def __init__(self) -> None:
        self.count = 0
        self._names: list[str] = []
        self._room = _MOST_REPORTED

    def add(self, name: str) -> None:
        self.count += 1
        self._room -= len(name)
        if self._room >= 0:
            self._names.append(name.encode("utf-8", "replace").decode())

    def member(self, top: tarfile.TarInfo) -> bytes:
        """The archive's own directory once more, with the report as a comment; nothing if nothing was left out."""
        if not self.count:
            return b""
        report = json.dumps({"skipped": self.count, "names": self._names}, ensure_ascii=False)
        top.pax_headers = {"comment": f"pandastack {report}"}
        return top.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class Links:
    """The symbolic links of an archive, by names compared as loosely as any file system does.

    Where ``L`` and ``l`` are one name, as on macOS and Windows, ``l/x`` lies behind a link ``L``.
    """

    def __init__(self) -> None:
        self._tree: dict[str, Any] = {}  # keyed by the folded parts of names; None marks a link

    def add(self, parts: list[str]) -> None:
        """Add a link that does not lie behind another."""
        *folders, last = map(folded, parts)
        branch = self._tree
        for part in folders:
            branch = branch.setdefault(part, {})
        branch[last] = None

    def lead(self, parts: list[str]) -> bool:
        """Whether a name is a link or lies behind one."""
        branch = self._tree
        for part in map(folded, parts):
            if part not in branch:
                return False
            branch = branch[part]
            if branch is None:
                return True
        return False


def folded(part: str) -> str:
    """A key that is equal for all spellings of a name's part that some file system takes for the same.

    File systems ignore case and Unicode's equivalent spellings (APFS, NTFS), invisible characters (HFS+), or dots and
    spaces at the end (Windows). Source: the Unicode Standard, D145.
    """
    visible = "".join(char for char in part if unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", visible).casefold()).rstrip(". ")


def refusal(name: str, what: str, hint: str | None = None) -> BadRequestError:
    """The error about one member."""
    shown = name[:200].encode("utf-8", "replace").decode()
    return BadRequestError(f"tar member {shown!r} is {what}", field="member", hint=hint)


def pax_records(content: bytes) -> dict[str, str]:
    """The ``length key=value`` lines of a pax header that matter here. Raises :class:`BadRequestError`."""
    found: dict[str, str] = {}
    at = 0
    while at < len(content):
        record = _PAX_RECORD.match(content, at)
        end = at + int(record[1]) if record else 0
        if record is None or not record.end() < end <= len(content) or content[end - 1 : end] != b"\n":
            raise BadRequestError("the tar archive has a malformed pax header")
        key = record[2].decode("utf-8", "replace")
        if key in ("path", "linkpath", "size") or key.startswith("GNU.sparse"):
            found[key] = content[record.end() : end - 1].decode("utf-8", "surrogateescape")
        at = end
    return found


def _text(content: bytes) -> str:
    return content.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _parts(name: str) -> list[str] | None:
    """The parts of a relative path, without empty and ``.`` parts; None for an invalid path."""
    encoded = name.encode("utf-8", "surrogateescape")
    too_long = len(encoded) > _MOST_NAME or any(len(part) > _MOST_PART for part in encoded.split(b"/"))
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if name.startswith("/") or ".." in parts or b"\0" in encoded or too_long else parts


def _is_target(target: str) -> bool:
    """Whether a symbolic link can have this target."""
    encoded = target.encode("utf-8", "surrogateescape")
    return 0 < len(encoded) < _MOST_NAME and b"\0" not in encoded


def _stays_inside(place: list[str], target: str) -> bool:
    """Whether a symbolic link in the directory ``place`` to ``target`` never leaves the archive's own directory.

    No member lies behind a link, so ``place`` is where it appears to be, and so is its parent ``..``. That does not
    hold for ``..`` after a name in ``target``: the name may be another link.
    """
    if target.startswith("/") or not _is_target(target):
        return False
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = parts.count("..")
    return up <= len(place) and ".." not in parts[up:]
