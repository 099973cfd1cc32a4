"""Where the time of an operation goes."""

from __future__ import annotations

import time
from collections.abc import Callable


class Stopwatch:
    """Measures milliseconds, to the hundredth: laps by name and the total. ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.laps: dict[str, float] = {}
        self._clock = clock
        self._started = self._last = clock()

    def lap(self, name: str) -> None:
        """End the current lap, which began when the last one ended. Laps of the same name add up."""
        now = self._clock()
        self.laps[name] = round(self.laps.get(name, 0.0) + (now - self._last) * 1000, 2)
        self._last = now

    def elapsed(self) -> float:
        """The total since the start."""
        return round((self._clock() - self._started) * 1000, 2)
