"""How often something may be done: so many times at once, and then as they grow back."""

from __future__ import annotations

import time
from collections.abc import Callable

MOST_KEYS = 10_000


class Allowance:
    """Each key has ``per_minute`` at first, and gains as many every minute."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = per_minute
        self._now = now
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, key: str) -> float:
        """Take one. Returns the seconds until there is one again: 0 when one was there."""
        seconds = self.wait(key)
        if not seconds:
            if len(self._left) >= MOST_KEYS:
                self._make_room()
            self._left[key] = self._of(key) - 1, self._now()
        return seconds

    def wait(self, key: str) -> float:
        """Seconds until one can be taken; 0: now."""
        left = self._of(key)
        return 0.0 if left >= 1 else (1 - left) * 60 / self._most

    def _of(self, key: str) -> float:
        now = self._now()
        left, since = self._left.get(key, (float(self._most), now))
        return min(self._most, left + (now - since) * self._most / 60)

    def _make_room(self) -> None:
        """Forget the keys that have all of theirs again; if there are none, the one that took longest ago."""
        self._left = {key: value for key, value in self._left.items() if self._of(key) < self._most}
        if len(self._left) >= MOST_KEYS:
            del self._left[min(self._left, key=lambda key: self._left[key][1])]
