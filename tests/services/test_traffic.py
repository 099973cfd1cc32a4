"""Counters of bytes that begin anew now and then, and sums that never shrink."""

from __future__ import annotations

from pandastack.cluster import Engines
from pandastack.contract.network import Traffic
from pandastack.services.network.traffic import TrafficCounters


def test_sums_grow_over_restarts_and_deletions() -> None:
    counters = TrafficCounters(Engines({}))
    counters.take("here", (Traffic("a", 10, 1), Traffic("b", 5, 5)))
    counters.take("there", (Traffic("c", 1, 1),))
    assert (counters.total_in, counters.total_out) == (16, 7)
    counters.take("here", (Traffic("a", 15, 1),))  # b is gone
    assert (counters.total_in, counters.total_out) == (21, 7)
    counters.take("here", (Traffic("a", 2, 2),))  # the engine began anew
    assert (counters.total_in, counters.total_out) == (23, 9)
    assert counters.of("here", "a") == (2, 2)
    assert counters.of("here", "b") == counters.of("nowhere", "a") == (0, 0)
