"""How often something may be done: so many times at once, and then as they grow back."""

from __future__ import annotations

import time
from collections.abc import Callable


class Allowance:
    """Each key has ``per_minute`` at first, and gains as many every minute."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = per_minute
        self._now = now
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, key: str) -> float:
        """Take one. Returns the seconds until there is one again: 0 when one was there."""
        now = self._now()
        left, since = self._left.get(key, (float(self._most), now))
        left = min(self._most, left + (now - since) * self._most / 60)
        if left < 1:
            self._left[key] = left, now
            return (1 - left) * 60 / self._most
        self._left[key] = left - 1, now
        return 0.0
