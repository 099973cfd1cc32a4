"""How often visitors without credentials may wake a sandbox."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from pandastack.errors import RateLimitError

_SECONDS = 60.0
_MANY = 1024
"""Sandboxes after which those that nobody woke in the last minute are forgotten."""


class WakeLimit:
    """At most ``most`` wakes of each sandbox in any minute. A refused one does not count."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._times: dict[str, deque[float]] = {}

    def count(self, sandbox_id: str) -> None:
        """Count a wake that is about to begin. Raises :class:`RateLimitError` when there were too many."""
        now = self._clock()
        if len(self._times) >= _MANY:
            self._times = {key: times for key, times in self._times.items() if times[-1] > now - _SECONDS}
        times = self._times.setdefault(sandbox_id, deque(maxlen=self._most))
        if len(times) == self._most and times[0] > now - _SECONDS:
            seconds = max(1, math.ceil(times[0] + _SECONDS - now))
            raise RateLimitError(
                "the sandbox was woken too often; it stays asleep for now",
                hint="a request with a token of the preview wakes it",
                retry_after=seconds,
            )
        times.append(now)
