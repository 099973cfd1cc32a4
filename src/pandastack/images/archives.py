"""Archives that ADD unpacks: how the host tells them from other files, and what unpacks them in the guest."""

from __future__ import annotations

import bz2
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pandastack.errors import BadRequestError
from pandastack.images.actions import UnpackAction
from pandastack.images.copying import OWNER_BY_NUMBER

_CHUNK = 64 * 1024
_LOOK_BYTES = 2 * 1024 * 1024
"""Bytes of a compressed file that are read to find its first block: a block of bzip2 has at most 900 kB."""

_XZ_MEMORY = 128 * 1024 * 1024
"""Bytes of memory that xz may ask for: its largest preset takes 65 MiB."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_NAMES = (".tar.zst", ".tar.zstd", ".tzst")

UNPACK = (
    r"""
set -euo pipefail
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
program=$1 package=$2 destination=$3 owner=$4 group=$5
"""
    + OWNER_BY_NUMBER
    + r"""
if [ -n "$program" ] && ! command -v "$program" >/dev/null; then
  echo "the archive needs $program, which is not installed. Add before it: RUN apt-get install $package" >&2
  exit 1
fi
unpack=(
  tar --extract --file=- --xattrs --xattrs-include='*' --numeric-owner --keep-directory-symlink --no-overwrite-dir
)
mkdir -p -- "$destination"
if [ -z "$owner" ]; then
  "${unpack[@]}" ${program:+--use-compress-program="$program"} --directory="$destination"
else
  aside=$(mktemp --directory --tmpdir="$destination" .unpacked.XXXXXXXX)
  trap 'rm -rf -- "$aside"' EXIT
  "${unpack[@]}" ${program:+--use-compress-program="$program"} --directory="$aside"
  tar --create --directory="$aside" --xattrs --xattrs-include='*' --owner=":${owner#+}" --group=":${group#+}" . |
    "${unpack[@]}" --directory="$destination"
fi
cat >/dev/null
"""
)
"""Unpack the archive on standard input. tar refuses members that lead out of the destination. Owners are changed in
a folder aside, because tar can change them only when it packs. ``cat`` takes what follows the end of the archive."""

_PROGRAMS = {"": "", "gzip": "gzip", "bzip2": "bzip2", "xz": "xz-utils", "zstd": "zstd"}
"""Programs that decompress, and the Debian packages that have them."""


def arguments(action: UnpackAction) -> tuple[str, ...]:
    """The program and its arguments that carry out ``action``; its standard input is the archive."""
    owner = ("", "") if action.owner is None else action.owner.words
    program = action.program
    return ("/bin/bash", "-c", UNPACK, "unpack", program, _PROGRAMS[program], action.destination, *owner)


def archive_program(path: Path) -> str | None:
    """The program that decompresses the archive ``path``: empty for a plain tar, ``None`` for any other file.

    The content decides, as for Docker: a file that is compressed, but no tar inside, is not an archive. For zstd,
    which the host cannot read, the name decides. A bounded number of bytes is read. Raises :class:`BadRequestError`
    for an archive that cannot be looked into.
    """
    with path.open("rb") as file:
        head = file.read(_CHUNK)
    if head.startswith(_ZSTD_MAGIC):
        return "zstd" if path.name.lower().endswith(_ZSTD_NAMES) else None
    for magic, program, opened in _FORMATS:
        if head.startswith(magic):
            return program if _is_tar(_first_block(path, opened())) else None
    return "" if _is_tar(head[: tarfile.BLOCKSIZE]) else None


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


_FORMATS: tuple[tuple[bytes, str, Callable[[], _Decompressor]], ...] = (
    (b"\x1f\x8b", "gzip", lambda: zlib.decompressobj(zlib.MAX_WBITS | 16)),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", "xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)),
)


def _first_block(path: Path, decompressor: _Decompressor) -> bytes:
    """The first block of what is compressed; less if there is no more, or if it is damaged."""
    block = b""
    try:
        with path.open("rb") as file:
            while len(block) < tarfile.BLOCKSIZE and file.tell() < _LOOK_BYTES and (data := file.read(_CHUNK)):
                block += decompressor.decompress(data, tarfile.BLOCKSIZE - len(block))
    except lzma.LZMAError as error:
        if "limit" in str(error):
            raise BadRequestError(
                f"{path.name} needs more than {_XZ_MEMORY >> 20} MiB of memory to unpack",
                hint="COPY it and RUN tar -xf",
            ) from error
    except (zlib.error, OSError, EOFError, ValueError):
        pass  # damaged
    return block


def _is_tar(block: bytes) -> bool:
    """Whether a block is the header of a member: its checksum says so. A tar without members is not unpacked."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True
