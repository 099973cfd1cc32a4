"""Slows a sandbox down that uses secrets faster than uses can be recorded: every use has its entry."""

from __future__ import annotations

import time

import anyio

PER_SECOND = 50.0
BURST = 200.0


class Pace:
    """A bucket of tokens for each slot."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    async def wait(self, slot: str) -> None:
        """Return once the slot may use a secret again."""
        now = time.monotonic()
        due = self._due[slot] = max(self._due.get(slot, 0.0), now - BURST / PER_SECOND) + 1 / PER_SECOND
        if due > now:
            await anyio.sleep(due - now)

    def forget(self, slot: str) -> None:
        """The slot is used no longer."""
        self._due.pop(slot, None)
