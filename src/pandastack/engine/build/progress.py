"""Progress reports of long work to its caller."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol

REPORT_SECONDS = 0.25
"""Time between two reports of a transfer."""


class Progress(Protocol):
    """Receives the progress. Steps begin and end in order, never nested; lines belong to the current step."""

    def begin(self, title: str) -> None: ...

    def line(self, text: str) -> None: ...

    def advance(self, done: int, total: int) -> None:
        """So many bytes of so many are done."""

    def end(self, title: str, seconds: float, note: str) -> None: ...


class Steps:
    """The steps of one piece of work: a step lasts until the next begins or the block ends well."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._title = ""
        self._note = ""
        self._started = 0.0
        self._advanced = 0.0

    def next(self, title: str) -> None:
        """End the running step and begin another."""
        self._finish()
        self._title, self._started = title, time.monotonic()
        self.progress.begin(title)

    def note(self, text: str) -> None:
        """Set the note shown when the current step ends, such as a size."""
        self._note = text

    def note_line(self, text: str) -> None:
        """Report something about the running step as a line of it."""
        self.progress.line(text)

    def advance(self, done: int, total: int) -> None:
        """Report bytes of the running step, a few times a second."""
        now = time.monotonic()
        if done == total or now - self._advanced >= REPORT_SECONDS:
            self._advanced = now
            self.progress.advance(done, total)

    def _finish(self) -> None:
        if self._title:
            self.progress.end(self._title, time.monotonic() - self._started, self._note)
        self._title = self._note = ""

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish()


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:.0f} MB" if size >= 10e6 else f"{size / 1e6:.1f} MB"
