"""How many decisions are reported."""

from __future__ import annotations

from pandastack.egress.log import Decision, DecisionLog
from pandastack.egress.pace import Bucket


def test_a_flood_is_counted() -> None:
    seen: list[Decision] = []
    log = DecisionLog(seen.append)
    for _ in range(2000):
        log.add(True, "dns", name="a.test", rule="allow")
    assert 200 <= len(seen) < 1000  # a slow host lets some more through, each with what was dropped before it
    assert sum(each.dropped for each in seen) + log.dropped == 2000 - len(seen)
    dropped = log.dropped
    log.add(False, "tls", name="b.test", rule="default", reason="no rule")
    assert (seen[-1].allowed, seen[-1].dropped) == (False, dropped)
    assert log.dropped == 0


def test_a_flood_that_ends_is_reported() -> None:
    seen: list[Decision] = []
    log = DecisionLog(seen.append)
    for _ in range(300):
        log.add(True, "dns", rule="allow")
    dropped = log.dropped
    log.flush()
    assert (seen[-1].rule, seen[-1].dropped) == ("log", dropped)
    count = len(seen)
    log.flush()
    assert len(seen) == count


def test_buckets() -> None:
    bucket = Bucket(rate=0.0, burst=3)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    assert not Bucket(rate=1, burst=3).take(4)
