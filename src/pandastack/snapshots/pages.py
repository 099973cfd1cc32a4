"""The file ``pages`` of a snapshot: the pages in which its memory differs from the file ``memory`` beside it.

Layout, all integers 64 bits, little-endian: the magic ``PSPAGES1``, the number of runs, for each run its offset in the
memory and its length, then the runs' bytes one after the other. A snapshot of a machine that has written little needs
no memory image of its own, and a machine that is restored from it shares the image, and the host's cache of it, with
all others of its template.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from pandastack.errors import ServerError

_MAGIC = b"PSPAGES1"
_HEAD = struct.Struct("<8sQ")
_RUN = struct.Struct("<2Q")

CHUNK = 1024 * 1024
"""How many bytes are read at once."""


def write(path: Path, runs: Sequence[tuple[int, int]], contents: Iterable[bytes]) -> None:
    """Write ``runs``, pairs of offset and length, whose bytes come in order, in pieces of any size."""
    with path.open("wb", buffering=CHUNK) as file:
        file.write(_HEAD.pack(_MAGIC, len(runs)))
        file.write(b"".join(_RUN.pack(*run) for run in runs))
        for content in contents:
            file.write(content)


def read(path: Path) -> Iterator[tuple[int, bytes]]:
    """The runs as pairs of offset and bytes, long ones in pieces; none when there is no such file.

    Raises :class:`ServerError` when the file is truncated or malformed.
    """
    with suppress(FileNotFoundError), path.open("rb", buffering=CHUNK) as file:
        magic, count = _HEAD.unpack(_exactly(file, _HEAD.size, path))
        if magic != _MAGIC:
            raise ServerError(f"{path} is not a file of memory pages", public="a captured memory is damaged")
        for offset, length in _RUN.iter_unpack(_exactly(file, count * _RUN.size, path)):
            for done in range(0, length, CHUNK):
                yield offset + done, _exactly(file, min(CHUNK, length - done), path)


def _exactly(file: BinaryIO, size: int, path: Path) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ServerError(f"{path} ends too early", public="a captured memory is damaged")
    return data
