"""Searches the memory of a snapshot for values, by their bytes: whether a secret has been captured. Blocking.

The work is done by grep: one pass for any number of values, in a process of its own, so that neither the event loop nor
the interpreter's lock waits for hundreds of megabytes. What it is given is cut into lines of limited length: a guest
decides what is in its memory, and grep holds a whole line.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from pandastack.errors import ServerError
from pandastack.snapshots import pages
from pandastack.snapshots.manifest import Snapshot

_GREP = ("grep", "--null-data", "--text", "--only-matching", "--fixed-strings")
_OUTPUT_PIECE = 64 * 1024


def search_snapshot(
    snapshot: Snapshot, template: Path | None, values: Sequence[bytes]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The places in ``values`` of those that are in the memory of a snapshot, and of those among them that are in the
    memory of its ``template`` too (None: it is gone). The values have no line breaks and no NUL.

    Raises :class:`ServerError` when the memory cannot be searched.
    """
    found = search(_memory(snapshot), values)
    if not found:
        return (), ()
    # Beside a file of pages, the memory is the template's: the same file under another name.
    shared = snapshot.memory if snapshot.pages.exists() else template
    again = [values[place] for place in found]
    inherited = [] if shared is None else search(stored(shared), again)
    return tuple(found), tuple(found[place] for place in inherited)


def search(contents: Iterable[tuple[int, bytes]], values: Sequence[bytes]) -> list[int]:
    """The places in ``values`` of those that are in ``contents``: pieces with their offsets, in order. A value may lie
    across pieces that follow each other."""
    if not values:
        return []
    with ExitStack() as stack:
        patterns = os.memfd_create("values")
        stack.callback(os.close, patterns)
        with open(patterns, "wb", closefd=False) as file:
            file.write(b"\n".join(values))
        argv = [*_GREP, f"--file=/proc/self/fd/{patterns}"]
        pipe, environment = subprocess.PIPE, {**os.environ, "LC_ALL": "C"}
        grep = stack.enter_context(
            subprocess.Popen(argv, bufsize=0, stdin=pipe, stdout=pipe, pass_fds=[patterns], env=environment)
        )
        assert grep.stdin is not None and grep.stdout is not None
        seen = set[bytes]()
        reader = threading.Thread(target=_collect, args=(grep.stdout.fileno(), frozenset(values), seen))
        reader.start()
        stack.callback(reader.join)
        stack.callback(grep.kill)  # before its end is waited for
        with suppress(BrokenPipeError):  # it has failed, and its status says so
            _feed(grep.stdin.fileno(), contents, max(map(len, values)))
        grep.stdin.close()
        reader.join()
        if (status := grep.wait()) not in (0, 1):
            raise ServerError(f"grep ended with {status} as it searched a memory", public="a memory cannot be searched")
    # Of values that begin at one place grep reports the longest, which has the others in it.
    return [place for place, value in enumerate(values) if any(value in each for each in seen)]


def stored(path: Path) -> Iterator[tuple[int, bytes]]:
    """What a sparse file holds, without its holes, as offsets and bytes."""
    with path.open("rb", buffering=0) as file:
        size, end = file.seek(0, os.SEEK_END), 0
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # only a hole is left
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            for offset in range(start, end, pages.CHUNK):
                yield offset, os.pread(file.fileno(), min(pages.CHUNK, end - offset), offset)


def _memory(snapshot: Snapshot) -> Iterator[tuple[int, bytes]]:
    """All of it, and what the image holds below newer pages: that is in the file just the same."""
    yield from pages.read(snapshot.pages)
    yield from stored(snapshot.memory)


def _feed(stdin: int, contents: Iterable[tuple[int, bytes]], longest: int) -> None:
    tail, end = b"", -1
    for offset, data in contents:
        line = tail + data if offset == end else data
        left = memoryview(line + b"\0")
        while left:
            left = left[os.write(stdin, left) :]
        tail, end = line[-(longest - 1) :], offset + len(data)


def _collect(stdout: int, values: frozenset[bytes], seen: set[bytes]) -> None:
    rest = b""
    while piece := os.read(stdout, _OUTPUT_PIECE):
        *lines, rest = (rest + piece).split(b"\0")
        seen.update(values.intersection(lines))
