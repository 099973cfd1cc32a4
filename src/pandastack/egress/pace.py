"""Rates: how often something may happen."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Bucket:
    """A token bucket: ``rate`` a second in the long run, ``burst`` at once."""

    rate: float
    burst: float
    _level: float = field(init=False)
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._level, self._since = self.burst, time.monotonic()

    def take(self, amount: float = 1.0) -> bool:
        """Take ``amount`` if there is as much."""
        now = time.monotonic()
        self._level = min(self.burst, self._level + (now - self._since) * self.rate)
        self._since = now
        if self._level < amount:
            return False
        self._level -= amount
        return True
