"""Where the time of an operation goes."""

from __future__ import annotations

import time


class Stopwatch:
    """Milliseconds, to the hundredth: laps by name, and the whole."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._started = self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Close the lap that began with the last one. Laps of the same name add up."""
        now = time.perf_counter()
        self.laps[name] = round(self.laps.get(name, 0.0) + (now - self._last) * 1000, 2)
        self._last = now

    def elapsed(self) -> float:
        """Since the start."""
        return round((time.perf_counter() - self._started) * 1000, 2)
