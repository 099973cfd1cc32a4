"""The commands of each sandbox since its last checkpoint, in memory: a killed server forgets them.

The text of commands comes from callers: it is cut short, put on one line, and stored for only as many as are shown.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

COMMANDS = 20
"""How many commands a checkpoint lists; earlier ones are only counted."""

SETTLE_SECONDS = 0.2
"""Silence that ends a burst of commands, within which no checkpoint is taken."""

BURST_SECONDS = 5.0
"""The longest burst; also how long a running command may delay the checkpoint after one that has ended."""

_MAX_TEXT = 200  # characters


@dataclass(frozen=True, slots=True)
class Ran:
    """The last commands since a checkpoint, oldest first, and how many there were in all."""

    commands: tuple[str, ...] = ()
    count: int = 0


@dataclass(slots=True)
class _Log:
    """The log of one sandbox. ``last`` survives checkpoints; end times cover commands finished since the last one."""

    last: str = ""
    commands: deque[str] = field(default_factory=lambda: deque(maxlen=COMMANDS))
    count: int = 0
    running: int = 0
    first_end: float | None = None
    last_end: float = 0.0
    attempted_at: float | None = None


NOTHING = Ran()


class CommandLog:
    """The commands of all sandboxes. ``clock`` returns epoch seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._logs: dict[str, _Log] = {}

    def began(self, sandbox_id: str, command: str) -> None:
        """Note the start of a command."""
        mine = self._logs.setdefault(sandbox_id, _Log())
        mine.last = one_line(command)
        mine.commands.append(mine.last)
        mine.count += 1
        mine.running += 1

    def ended(self, sandbox_id: str) -> None:
        """Note the end of a command."""
        mine = self._logs.get(sandbox_id)
        if mine is None:
            return
        now = self._clock()
        mine.running -= 1
        mine.first_end = now if mine.first_end is None else mine.first_end
        mine.last_end = now

    def settled_at(self, sandbox_id: str) -> float | None:
        """When a checkpoint after finished commands is due; None when none has finished since the last attempt."""
        mine = self._logs.get(sandbox_id)
        if mine is None or mine.first_end is None:
            return None
        latest = mine.first_end + BURST_SECONDS
        return latest if mine.running > 0 else min(latest, mine.last_end + SETTLE_SECONDS)

    def attempt(self, sandbox_id: str) -> Ran:
        """The commands for a checkpoint that is about to be taken. Call :meth:`recorded` once it was."""
        mine = self._logs.setdefault(sandbox_id, _Log())
        mine.first_end, mine.attempted_at = None, self._clock()
        return Ran(tuple(mine.commands), mine.count)

    def attempted_at(self, sandbox_id: str) -> float | None:
        """When the last checkpoint since the start of the server was attempted (epoch seconds)."""
        mine = self._logs.get(sandbox_id)
        return None if mine is None else mine.attempted_at

    def recorded(self, sandbox_id: str, ran: Ran) -> None:
        """Drop the commands in ``ran``, which a checkpoint now lists; later ones stay for the next."""
        mine = self._logs.get(sandbox_id)
        if mine is None:
            return
        mine.count -= ran.count
        while len(mine.commands) > mine.count:
            mine.commands.popleft()

    def undone(self, sandbox_id: str) -> None:
        """Drop everything: the sandbox was rewound to a checkpoint."""
        mine = self._logs.get(sandbox_id)
        if mine is not None:
            self._logs[sandbox_id] = _Log(running=mine.running, attempted_at=mine.attempted_at)

    def last(self, sandbox_id: str) -> str:
        """The last command since the start of the server; may be empty."""
        mine = self._logs.get(sandbox_id)
        return "" if mine is None else mine.last

    def forget(self, sandbox_id: str) -> None:
        """Remove the log of a sandbox that is gone."""
        self._logs.pop(sandbox_id, None)


def one_line(text: str) -> str:
    """The beginning of ``text`` for people: unprintable characters are escaped as in a Python string."""
    shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text[:_MAX_TEXT])
    return shown[:_MAX_TEXT]
