"""What ran in each sandbox since its last checkpoint. In memory: what a killed server forgets no checkpoint lists.

The text of commands comes from callers: it is kept short, on one line, and only as many of them as are shown.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

COMMANDS = 20
"""How many commands a checkpoint lists; those before are only counted."""

SETTLE_SECONDS = 0.2
"""Silence after a command that ends a burst of commands: no checkpoint is taken between them."""

BURST_SECONDS = 5.0
"""The longest burst, or the longest that a command which still runs puts off the checkpoint of one that has ended."""

_MAX_TEXT = 200  # characters


@dataclass(frozen=True, slots=True)
class Ran:
    """The last commands since a checkpoint, oldest first, and the number of all."""

    commands: tuple[str, ...] = ()
    count: int = 0


@dataclass(slots=True)
class _Log:
    """Of one sandbox. ``last`` survives checkpoints; end times cover commands finished since the last checkpoint."""

    last: str = ""
    commands: deque[str] = field(default_factory=lambda: deque(maxlen=COMMANDS))
    count: int = 0
    running: int = 0
    first_end: float | None = None
    last_end: float = 0.0
    attempted_at: float | None = None


NOTHING = Ran()


class CommandLog:
    """The commands of all sandboxes. ``clock`` gives epoch seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._logs: dict[str, _Log] = {}

    def began(self, sandbox_id: str, command: str) -> None:
        """A command begins."""
        mine = self._logs.setdefault(sandbox_id, _Log())
        mine.last = one_line(command)
        mine.commands.append(mine.last)
        mine.count += 1
        mine.running += 1

    def ended(self, sandbox_id: str) -> None:
        """One of them has ended."""
        mine = self._logs.get(sandbox_id)
        if mine is None:
            return
        now = self._clock()
        mine.running -= 1
        mine.first_end = now if mine.first_end is None else mine.first_end
        mine.last_end = now

    def settled_at(self, sandbox_id: str) -> float | None:
        """When a checkpoint after the commands that have ended is due; None when none has since the last attempt."""
        mine = self._logs.get(sandbox_id)
        if mine is None or mine.first_end is None:
            return None
        latest = mine.first_end + BURST_SECONDS
        return latest if mine.running > 0 else min(latest, mine.last_end + SETTLE_SECONDS)

    def attempt(self, sandbox_id: str) -> Ran:
        """A checkpoint is about to be taken of what is returned. Call :meth:`recorded` when it was."""
        mine = self._logs.setdefault(sandbox_id, _Log())
        mine.first_end, mine.attempted_at = None, self._clock()
        return Ran(tuple(mine.commands), mine.count)

    def attempted_at(self, sandbox_id: str) -> float | None:
        """When the last checkpoint was attempted since the start of the server (epoch seconds)."""
        mine = self._logs.get(sandbox_id)
        return None if mine is None else mine.attempted_at

    def recorded(self, sandbox_id: str, ran: Ran) -> None:
        """There is a checkpoint that lists ``ran``; what began since stays for the next."""
        mine = self._logs.get(sandbox_id)
        if mine is None:
            return
        mine.count -= ran.count
        while len(mine.commands) > mine.count:
            mine.commands.popleft()

    def undone(self, sandbox_id: str) -> None:
        """The sandbox is at a checkpoint again."""
        mine = self._logs.get(sandbox_id)
        if mine is not None:
            self._logs[sandbox_id] = _Log(running=mine.running, attempted_at=mine.attempted_at)

    def last(self, sandbox_id: str) -> str:
        """The last command since the start of the server; may be empty."""
        mine = self._logs.get(sandbox_id)
        return "" if mine is None else mine.last

    def forget(self, sandbox_id: str) -> None:
        """The sandbox is gone."""
        self._logs.pop(sandbox_id, None)


def one_line(text: str) -> str:
    """The beginning of ``text`` for people: whatever is not printable is escaped as in a string of Python."""
    shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text[:_MAX_TEXT])
    return shown[:_MAX_TEXT]
