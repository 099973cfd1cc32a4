"""How often visitors may wake a sandbox."""

from __future__ import annotations

import pytest

from pandastack.errors import RateLimitError
from pandastack.services.previews.wake_limit import WakeLimit


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_so_many_wakes_in_any_minute_for_each_sandbox() -> None:
    clock = Clock()
    limit = WakeLimit(2, clock)
    limit.count("a")
    clock.now += 20
    limit.count("a")
    limit.count("b")
    for _ in range(3):  # a refused one does not count
        with pytest.raises(RateLimitError) as refused:
            limit.count("a")
        assert refused.value.retry_after == 40
    limit.count("b")
    clock.now += 40
    limit.count("a")
    with pytest.raises(RateLimitError) as refused:
        limit.count("a")
    assert refused.value.retry_after == 20


def test_sandboxes_of_long_ago_are_forgotten() -> None:
    clock = Clock()
    limit = WakeLimit(1, clock)
    for number in range(1024):
        limit.count(f"old-{number}")
    clock.now += 61
    limit.count("new")
    assert len(limit._times) == 1
