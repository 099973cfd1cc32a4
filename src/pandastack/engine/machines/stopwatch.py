"""Where the time of an operation goes."""

from __future__ import annotations

import time
from collections.abc import Callable


class Stopwatch:
    """Milliseconds, to the hundredth: laps by name, and the whole. ``clock`` tells seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.laps: dict[str, float] = {}
        self._clock = clock
        self._started = self._last = clock()

    def lap(self, name: str) -> None:
        """Close the lap that began with the last one. Laps of the same name add up."""
        now = self._clock()
        self.laps[name] = round(self.laps.get(name, 0.0) + (now - self._last) * 1000, 2)
        self._last = now

    def elapsed(self) -> float:
        """Since the start."""
        return round((self._clock() - self._started) * 1000, 2)
