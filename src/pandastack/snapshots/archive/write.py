"""Writing the archive of a template."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from pandastack.contract import codec
from pandastack.errors import ServerError
from pandastack.host import facts, files
from pandastack.model.template import Template
from pandastack.snapshots.archive.index import CHUNK, FILES, FORMAT, INDEX, INDEX_MAX, SUM, Index, PackedFile
from pandastack.snapshots.archive.zstd import COMPRESS, last_words, zstd
from pandastack.snapshots.manifest import Manifest, Snapshot

_GAP = 64 * 1024
"""Holes that are smaller are written as zeros: the index stays small."""

Advance = Callable[[int, int], None]
"""Told how many of so many bytes are done."""


def write(target: Path, template: Template, snapshot: Snapshot, advance: Advance) -> Index:
    """Write the archive of ``snapshot``; ``target`` appears as a whole, in place of what was there. Blocking."""
    temporary = target.with_name(f".{target.name}.new")
    try:
        with ExitStack() as stack:
            opened = {name: stack.enter_context((snapshot.directory / name).open("rb")) for name in FILES}
            index = _index(template, snapshot.manifest, opened, advance)
            with temporary.open("wb") as out, _compressing(out) as pipe:
                for chunk in _members(index, opened, advance):
                    pipe.write(chunk)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.rename(target)
    except OSError as error:
        raise files.map_error(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)
    return index


def _index(template: Template, manifest: Manifest, opened: Mapping[str, IO[bytes]], advance: Advance) -> Index:
    model, features = facts.cpu_features()
    described = replace(manifest, memory_stamp="", disk_stamps=())  # of the files in this host's pool
    ranges = {name: _ranges(file) for name, file in opened.items()}
    total = 2 * sum(end - start for each in ranges.values() for start, end in each)
    packed, done = [], 0
    for name, file in opened.items():
        digest = hashlib.sha256()
        for chunk in _read(file, ranges[name]):
            digest.update(chunk)
            done += len(chunk)
            advance(done, total)
        flat = tuple(place for pair in ranges[name] for place in pair)
        packed.append(PackedFile(name, os.fstat(file.fileno()).st_size, digest.hexdigest(), flat))
    return Index(FORMAT, model, tuple(sorted(features)), template, described, tuple(packed))


def _ranges(file: IO[bytes]) -> list[tuple[int, int]]:
    """The ranges of a file that are not holes, those with little between them as one."""
    merged: list[tuple[int, int]] = []
    for start, end in files.data_ranges(file.fileno(), os.fstat(file.fileno()).st_size):
        if merged and start - merged[-1][1] < _GAP:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def _read(file: IO[bytes], ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    for start, end in ranges:
        file.seek(start)
        while start < end:
            chunk = file.read(min(CHUNK, end - start))
            if not chunk:
                raise ServerError(f"{file.name} shrank while it was read")
            start += len(chunk)
            yield chunk


def _members(index: Index, opened: Mapping[str, IO[bytes]], advance: Advance) -> Iterator[bytes]:
    text = codec.encode(index)
    if len(text) > INDEX_MAX:
        raise ServerError("the template's files have too many holes to be exported")
    for name, data in ((INDEX, text), (SUM, hashlib.sha256(text).hexdigest().encode())):
        yield _header(name, len(data))
        yield data + _padding(len(data))
    done = sum(each.packed for each in index.files)
    total = 2 * done
    for each in index.files:
        yield _header(each.name, each.packed)
        for chunk in _read(opened[each.name], each.pairs):
            yield chunk
            done += len(chunk)
            advance(done, total)
        yield _padding(each.packed)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


@contextmanager
def _compressing(out: IO[bytes]) -> Iterator[IO[bytes]]:
    with zstd(*COMPRESS, stdin=subprocess.PIPE, stdout=out) as process:
        assert process.stdin is not None
        try:
            yield process.stdin
            process.stdin.close()
        except BrokenPipeError:  # its end is explained below
            pass
        if process.wait() != 0:
            raise ServerError(f"zstd failed: {last_words(process)}")
