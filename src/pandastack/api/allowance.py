"""A token bucket: limits how often something may be done, with bursts."""

from __future__ import annotations

import time
from collections.abc import Callable

MOST_KEYS = 10_000


class Allowance:
    """Each key starts with ``per_minute`` tokens, and gains as many every minute."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = per_minute
        self._now = now
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, key: str) -> float:
        """Take one token. Returns 0, or if there is none, the seconds until there is."""
        seconds = self.wait(key)
        if not seconds:
            if len(self._left) >= MOST_KEYS:
                self._make_room()
            self._left[key] = self._of(key) - 1, self._now()
        return seconds

    def wait(self, key: str) -> float:
        """Seconds until a token can be taken; 0: now."""
        left = self._of(key)
        return 0.0 if left >= 1 else (1 - left) * 60 / self._most

    def _of(self, key: str) -> float:
        now = self._now()
        left, since = self._left.get(key, (float(self._most), now))
        return min(self._most, left + (now - since) * self._most / 60)

    def _make_room(self) -> None:
        """Drop the keys whose buckets are full; if there are none, the least recently used one."""
        self._left = {key: value for key, value in self._left.items() if self._of(key) < self._most}
        if len(self._left) >= MOST_KEYS:
            del self._left[min(self._left, key=lambda key: self._left[key][1])]
