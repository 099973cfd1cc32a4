"""The log of a job: what its commands printed, in order and by stream. Its beginning and its end are kept.

The file is a sequence of the records of :mod:`pandastack.contract.records`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import IO

import anyio

from pandastack.contract.records import STDERR, Output, RecordParser, encode_record

MOST_BYTES = 16 * 1024 * 1024
"""How much of the beginning is kept."""
MOST_END_BYTES = 256 * 1024
"""How much of the end is kept beyond that."""
_PIECE = 64 * 1024


class JobLog:
    """A reader sees everything from the beginning, and may follow until :meth:`close`.

    What comes after the beginning is seen when the log is closed: only then it is known what the end is.
    """

    def __init__(self, path: Path, *, closed: bool = False, most: int = MOST_BYTES, end: int = MOST_END_BYTES) -> None:
        self._path = path
        self._most, self._most_end = most, end
        self._file: IO[bytes] | None = None
        self._size = path.stat().st_size if path.exists() else 0
        self._end: deque[Output] = deque()
        self._end_size = self._dropped = 0
        self._grown = anyio.Event()
        self.closed = closed

    def add(self, output: Output) -> None:
        """Append a piece of output."""
        if not self._end and self._size + len(output.data) <= self._most:
            self._write(output)
            return
        self._end.append(output)
        self._end_size += len(output.data)
        while self._end_size - len(self._end[0].data) >= self._most_end:
            gone = len(self._end.popleft().data)
            self._end_size -= gone
            self._dropped += gone

    def say(self, text: str) -> None:
        """Append a line of ours."""
        self.add(Output(STDERR, f"[{text}]\n".encode()))

    def close(self) -> None:
        """Nothing follows any more. A second time does nothing."""
        if self.closed:
            return
        if self._dropped:
            self._write(Output(STDERR, f"\n[{self._dropped} bytes are left out here]\n".encode()))
        while self._end:
            self._write(self._end.popleft())
        if self._file is not None:
            self._file.close()
        self.closed = True
        self._wake()

    async def read(self, *, follow: bool) -> AsyncGenerator[Output, None]:
        """What was printed so far; with ``follow``, until the job has ended."""
        offset, parser = 0, RecordParser()
        while True:
            grown, closed = self._grown, self.closed
            while piece := self._piece(offset):
                offset += len(piece)
                for record in parser.feed(piece):
                    if isinstance(record, Output):
                        yield record
            if closed or not follow:
                return
            await grown.wait()

    def _write(self, output: Output) -> None:
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
        record = encode_record(output)
        self._size += len(record)
        self._file.write(record)
        self._wake()

    def _piece(self, offset: int) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                return file.read(_PIECE)
        except FileNotFoundError:  # nothing was printed, or the job was deleted
            return b""

    def _wake(self) -> None:
        self._grown.set()
        self._grown = anyio.Event()
