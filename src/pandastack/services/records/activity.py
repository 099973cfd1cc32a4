"""The idle clock: when each sandbox was last used, and which are in use right now.

It lives in memory, because every request moves it; the reaper writes it to the store now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pandastack.services.records.bus import Bus, CommandEnded, SandboxUsed
from pandastack.services.records.command_log import CommandLog


class Activity:
    """The idle clocks of all sandboxes. ``clock`` returns epoch seconds."""

    def __init__(self, bus: Bus, clock: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._clock = clock
        self._last: dict[str, float] = {}
        self._running: dict[str, int] = {}
        self._unsaved: set[str] = set()
        self._attended: dict[str, float] = {}
        self.command_log = CommandLog(clock)

    def start(self, sandbox_id: str, at: float | None = None) -> None:
        """Start the clock of a sandbox that was last active ``at`` (epoch seconds; None: now)."""
        self._last[sandbox_id] = self._clock() if at is None else at

    def forget(self, sandbox_id: str) -> None:
        """Remove the clock of a sandbox that is gone."""
        self._last.pop(sandbox_id, None)
        self._attended.pop(sandbox_id, None)
        self._unsaved.discard(sandbox_id)
        self.command_log.forget(sandbox_id)

    def ran(self, sandbox_id: str, command: str) -> None:
        """Note the start of a command; call :meth:`done` when it has ended."""
        if sandbox_id in self._last:
            self.command_log.began(sandbox_id, command)

    def done(self, sandbox_id: str) -> None:
        """Note the end of a command, whatever its outcome."""
        self.command_log.ended(sandbox_id)
        self._bus.publish(CommandEnded(sandbox_id))

    @contextmanager
    def hold(self, sandbox_id: str) -> Iterator[None]:
        """Count an operation on the sandbox as activity for as long as the block runs."""
        self._touch(sandbox_id)
        if not self.busy(sandbox_id):
            self._bus.publish(SandboxUsed(sandbox_id))
        self._running[sandbox_id] = self._running.get(sandbox_id, 0) + 1
        try:
            yield
        finally:
            self._running[sandbox_id] -= 1
            if not self._running[sandbox_id]:
                del self._running[sandbox_id]
            self._touch(sandbox_id)

    def attend(self, sandbox_id: str) -> None:
        """Note that a client is connected now: the sandbox is not deleted, but it may be hibernated."""
        if sandbox_id in self._last:
            self._attended[sandbox_id] = self._clock()

    def last_attended(self, sandbox_id: str) -> float:
        """Epoch seconds of the last activity, or of the last moment when a client was connected."""
        return max(self.last_active(sandbox_id), self._attended.get(sandbox_id, 0.0))

    def busy(self, sandbox_id: str) -> bool:
        """Whether an operation is in progress."""
        return sandbox_id in self._running

    def last_active(self, sandbox_id: str) -> float:
        """Epoch seconds of the last activity; now for a sandbox in use."""
        now = self._clock()
        return now if self.busy(sandbox_id) else self._last.get(sandbox_id, now)

    def idle_seconds(self, sandbox_id: str) -> float:
        """Seconds without activity, 0 while an operation is in progress."""
        return max(0.0, self._clock() - self.last_active(sandbox_id))

    def take_unsaved(self) -> dict[str, float]:
        """The clocks that moved since the last call, for the store: id → epoch seconds."""
        unsaved, self._unsaved = self._unsaved, set()
        return {sandbox_id: self.last_active(sandbox_id) for sandbox_id in unsaved}

    def _touch(self, sandbox_id: str) -> None:
        if sandbox_id in self._last:
            self._last[sandbox_id] = self._clock()
            self._unsaved.add(sandbox_id)
