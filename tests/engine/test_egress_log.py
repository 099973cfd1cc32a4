"""The egress log: numbers that only grow, bounds, and readers that follow."""

from __future__ import annotations

import anyio
import pytest

from pandastack.contract.network import EgressRecords
from pandastack.egress.log import Decision
from pandastack.engine.sandboxes.egress_log import EgressLog

pytestmark = pytest.mark.anyio


def decision(name: str = "a.example", time: float = 1.0) -> Decision:
    return Decision(time, False, "dns", name, "", 0, "default", "no rule allows it")


def names(found: EgressRecords) -> list[str]:
    return [each.name for each in found.records]


def test_numbers_increase_whatever_the_clock_does() -> None:
    log = EgressLog()
    for time in (2.0, 2.0, 1.0, 3.0):
        log.add("s", decision(time=time))
    numbers = [each.seq for each in log.since("s", 0, 10).records]
    assert numbers == [2_000_000, 2_000_001, 2_000_002, 3_000_000]


def test_readers_continue_where_they_stopped() -> None:
    log = EgressLog()
    for name in "abcd":
        log.add("s", decision(name))
    first = log.since("s", 0, 2)
    assert (names(first), first.forgotten) == (["a", "b"], False)
    assert names(log.since("s", first.records[-1].seq, 10)) == ["c", "d"]
    assert log.since("s", 10**18, 10) == log.since("other", 0, 10) == EgressRecords(())


def test_the_oldest_are_forgotten_and_it_shows() -> None:
    log = EgressLog(most=2)
    for name in "abc":
        log.add("s", decision(name))
    found = log.since("s", 0, 10)
    assert (names(found), found.forgotten) == (["b", "c"], True)
    assert not log.since("s", found.records[0].seq, 10).forgotten


def test_one_busy_sandbox_pays_for_the_bound_of_all() -> None:
    log = EgressLog(most=100, most_of_all=10)
    log.add("quiet", decision("q"))
    for number in range(30):
        log.add("busy", decision(str(number)))
    assert names(log.since("quiet", 0, 10)) == ["q"]
    left = names(log.since("busy", 0, 100))
    assert left[-1] == "29" and len(left) < 10


async def test_a_follower_gets_what_is_there_and_what_comes_until_the_end() -> None:
    log, seen = EgressLog(), list[str]()
    log.add("s", decision("a"))

    async def follow() -> None:
        async for record in log.follow("s", 0):
            seen.append(record.name)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            assert seen == ["a"]
            log.add("s", decision("b"))
            log.add("other", decision("x"))
            log.add("s", decision("c"))
            await anyio.wait_all_tasks_blocked()
            assert seen == ["a", "b", "c"]
            log.forget("s")
    assert log.since("s", 0, 10) == EgressRecords(())
