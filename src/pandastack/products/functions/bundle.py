"""What a deploy is given: source, or an archive of files, either compressed or not. Blocking."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from pandastack.errors import BadRequestError, TooLargeError
from pandastack.products.functions.dependencies import (
    MANIFESTS,
    MOST_LOCK,
    Install,
    chosen_file,
    is_read_here,
    plan_install,
)
from pandastack.products.functions.spec import MOST_BUNDLE, MOST_UNPACKED

_MOST_MEMBERS = 20_000
_PIECE = 1 << 20
_GZIP, _ZIP, _TAR, _TAR_AT = b"\x1f\x8b", b"PK\x03\x04", b"ustar", 257


@dataclass(frozen=True, slots=True)
class Bundle:
    """``archive`` is the file of a tar archive, not compressed; ``code`` is what ``GET …/code`` answers: source, or the
    archive, compressed. ``size`` is the size of what was given, in bytes; ``manifests`` are the files that name
    dependencies."""

    archive: Path
    code: bytes
    size: int
    manifests: frozenset[str] = frozenset()


def read_bundle(data: bytes, entrypoint: str, folder: Path) -> Bundle:
    """Check what was given, and make an archive of it in ``folder``. ``entrypoint``: the file that it must have.

    Raises :class:`BadRequestError` and :class:`TooLargeError`.
    """
    if len(data) > MOST_BUNDLE:
        raise TooLargeError(f"bundle: over {MOST_BUNDLE} bytes", field="bundle")
    if data.startswith(_ZIP):
        raise _refusal("must be no ZIP archive", "send a tar archive, compressed with gzip or not")
    archive = folder / "bundle.tar"
    unpacked = folder / "unpacked"
    _unpack(data, unpacked)
    with unpacked.open("rb") as file:
        is_archive = file.read(_TAR_AT + len(_TAR))[_TAR_AT:] == _TAR
    if not is_archive:
        source = unpacked.read_bytes()
        _write_one(archive, entrypoint, source)
        return Bundle(archive, gzip.compress(source, mtime=0), len(data))
    unpacked.rename(archive)
    only, manifests = _checked_members(archive, entrypoint)
    if only is not None:
        return Bundle(archive, gzip.compress(only, mtime=0), len(data))
    code = data if data.startswith(_GZIP) else gzip.compress(data, mtime=0)
    return Bundle(archive, code, len(data), manifests)


def install_of(bundle: Bundle, runtime: str) -> Install | None:
    """How to install what a bundle depends on; None: nothing. Raises :class:`BadRequestError` for a lock that cannot be
    honoured."""
    name = chosen_file(bundle.manifests, runtime)
    if name is None:
        return None
    return plan_install(name, runtime, _read_member(bundle.archive, name) if is_read_here(name) else b"")


def _read_member(archive: Path, name: str) -> bytes:
    """The file ``name`` as unpacking leaves it: of several members with one path the last; cut when it is too long."""
    content = b""
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            if member.isreg() and _plain(member.name) == name and (file := tar.extractfile(member)) is not None:
                content = file.read(MOST_LOCK + 1)
    return content


def _plain(path: str) -> str:
    return "/".join(each for each in path.split("/") if each not in ("", "."))


def _unpack(data: bytes, target: Path) -> None:
    """Write the content, decompressed if it is compressed, as long as it is not too long."""
    if not data.startswith(_GZIP):
        target.write_bytes(data)
        return
    inflating, total, place = zlib.decompressobj(wbits=31), 0, 0
    with target.open("wb") as file:
        try:
            while not inflating.eof:
                piece = inflating.unconsumed_tail or data[place : place + _PIECE]
                if not inflating.unconsumed_tail:
                    place += len(piece)
                if not piece:
                    raise _refusal("the compressed data ends too early")
                made = inflating.decompress(piece, _PIECE)
                total += len(made)
                if total > MOST_UNPACKED:
                    raise TooLargeError(f"bundle: over {MOST_UNPACKED} bytes unpacked", field="bundle")
                file.write(made)
        except zlib.error as error:
            raise _refusal("is not valid gzip") from error


def _checked_members(archive: Path, entrypoint: str) -> tuple[bytes | None, frozenset[str]]:
    """Check the members. The content of the entrypoint if there is nothing else, and the files that name
    dependencies."""
    files, total, found, manifests = 0, 0, None, set[str]()
    try:
        with tarfile.open(archive, "r:") as tar:
            for count, member in enumerate(tar):
                if count >= _MOST_MEMBERS:
                    raise _refusal(f"over {_MOST_MEMBERS} files")
                parts = member.name.split("/")
                if member.name.startswith("/") or ".." in parts:
                    raise _refusal(f"unsafe path {member.name[:100]!r}", "paths are relative, without ..")
                total += member.size
                if total > MOST_UNPACKED:
                    raise TooLargeError(f"bundle: over {MOST_UNPACKED} bytes unpacked", field="bundle")
                files += not member.isdir()
                name = _plain(member.name)
                if member.isreg() and name == entrypoint:
                    found = member
                if member.isreg() and name in MANIFESTS:
                    manifests.add(name)
            if found is None:
                hint = f"`entrypoint` names the file in the archive, not {entrypoint[:64]!r}"
                raise BadRequestError("entrypoint: the bundle has no such file", field="entrypoint", hint=hint)
            content = tar.extractfile(found) if files == 1 else None
            return None if content is None else content.read(), frozenset(manifests)
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError) as error:
        raise _refusal("is not a valid tar archive") from error


def _write_one(archive: Path, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(content))


def _refusal(what: str, hint: str | None = None) -> BadRequestError:
    return BadRequestError(f"bundle: {what}", field="bundle", hint=hint)
