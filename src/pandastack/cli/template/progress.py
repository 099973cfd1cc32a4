"""A build's progress on a terminal: a line per finished step, a spinner with the last output for the running one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from pandastack.cli.output import short

_BAR = 30
"""Width of the bar of a transfer, in characters."""


class TerminalProgress:
    """Shows steps as they run; without a terminal only finished ones are printed."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._title = ""
        self._started = 0.0

    def show(self, kind: str, data: Mapping[str, Any]) -> None:
        """An event of a build, as the API sends it."""
        match kind:
            case "step":
                self.begin(str(data["title"]))
            case "line":
                self.line(str(data["text"]))
            case "progress":
                self.advance(int(data["done"]), int(data["total"]))
            case "step_ended":
                self.end(str(data["title"]), float(data["seconds"]), str(data["note"]))

    def begin(self, title: str) -> None:
        self._title, self._started = short(title, 90), time.monotonic()
        if self._console.is_terminal:
            self._status = self._console.status(escape(self._title))
            self._status.start()

    def line(self, text: str) -> None:
        if self._status is not None:
            seconds = time.monotonic() - self._started
            self._status.update(f"{escape(self._title)} [dim]{seconds:.0f} s  {escape(short(text, 60))}[/dim]")

    def advance(self, done: int, total: int) -> None:
        if self._status is not None:
            filled = _BAR * done // max(total, 1)
            bar = "█" * filled + "░" * (_BAR - filled)
            self._status.update(f"{escape(self._title)} {bar} [dim]{done / 1e6:.0f} of {total / 1e6:.0f} MB[/dim]")

    def end(self, title: str, seconds: float, note: str) -> None:
        self.stop()
        if seconds >= 0.1 or note:
            self._console.print(
                f"  {escape(short(title, 90)):<92}[dim]{seconds:6.1f} s  {escape(short(note, 90))}[/dim]"
            )

    def stop(self) -> None:
        """Remove the spinner from the terminal."""
        if self._status is not None:
            self._status.stop()
            self._status = None
