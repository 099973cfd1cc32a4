"""How many machines wait for which snapshots: by recent creates, hints, and a budget that all share."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.engine.machines.demand import (
    HALF_LIFE_S,
    MOST_WEIGHT,
    Budget,
    Demand,
    Wish,
    after_create,
    expecting,
    plan_waiting,
    wish_of,
)

AMPLE = Budget(1000, 10**6)
TIMES = st.floats(0, 10_000, allow_nan=False)


def created(*times: float) -> Demand:
    demand = Demand()
    for each in times:
        demand = after_create(demand, each)
    return demand


@pytest.mark.parametrize(
    ("times", "now", "wanted"),
    [
        ((), 0, 0),
        ((0,), 0, 0),
        ((0, 10), 10, 1),
        ((0, HALF_LIFE_S), HALF_LIFE_S, 1),
        ((0, 3 * HALF_LIFE_S), 3 * HALF_LIFE_S, 0),
        ((0, 1, 2), 2, 2),
        (range(100), 100, 7),
        (range(100), 100 + HALF_LIFE_S, 3),
        (range(100), 100 + 3 * HALF_LIFE_S, 0),
    ],
)
def test_repeated_creates_want_machines_and_none_some_minutes_later(
    times: tuple[float, ...], now: float, wanted: int
) -> None:
    assert created(*times).wanted(now) == wanted


def test_a_hint_holds_for_its_time_and_the_next_replaces_it() -> None:
    demand = expecting(Demand(), 100, 3, 60)
    assert [demand.wanted(now) for now in (100, 159, 160)] == [3, 3, 0]
    assert (demand.is_none(159), demand.is_none(160)) == (False, True)
    assert expecting(demand, 110, 0, 60).wanted(110) == 0
    assert created(*range(100)).wanted(100) == expecting(created(*range(100)), 100, 2, 60).wanted(100) == 7


@given(st.lists(TIMES, max_size=30).map(sorted), TIMES, st.integers(0, 20), st.floats(0.1, 1000))
def test_a_demand_changes_when_it_says_so_and_ends(
    times: list[float], hint_at: float, count: int, lasts: float
) -> None:
    now = max([hint_at, *times])
    demand = expecting(created(*times), now, count, lasts)
    assert demand.weighs(now) <= MOST_WEIGHT
    for _ in range(60):
        wait = demand.changes_in(now)
        if wait == math.inf:
            break
        assert wait >= 0
        assert demand.wanted(now) == demand.wanted(now + wait * 0.999), "nothing changes before"
        now += wait + 1e-3
    assert demand.is_none(now) and demand.wanted(now) == 0 and demand.changes_in(now) == math.inf


WISHES = st.dictionaries(
    st.integers(0, 8), st.builds(Wish, st.integers(0, 20), st.floats(0.5, 20), st.integers(32, 300)), max_size=8
)


@given(WISHES, st.integers(0, 32), st.integers(0, 4096))
def test_a_plan_keeps_to_budget_and_wishes_and_wastes_nothing(
    wishes: dict[int, Wish], machines: int, memory_mb: int
) -> None:
    plan = plan_waiting(wishes, Budget(machines, memory_mb))
    used_mb = sum(wishes[key].memory_mb * count for key, count in plan.items())
    assert sum(plan.values()) <= machines and used_mb <= memory_mb
    assert all(0 < count <= wishes[key].count for key, count in plan.items())
    if sum(plan.values()) < machines:
        unmet = [wish for key, wish in wishes.items() if plan.get(key, 0) < wish.count]
        assert all(used_mb + wish.memory_mb > memory_mb for wish in unmet)


def test_machines_are_shared_by_demand() -> None:
    many, few = Wish(7, 8.0, 32), Wish(1, 1.6, 32)
    assert plan_waiting({"many": many, "few": few}, AMPLE) == {"many": 7, "few": 1}
    assert plan_waiting({"many": many, "few": few}, Budget(4, 1024)) == {"many": 4}
    assert plan_waiting({"many": many, "few": few}, Budget(6, 1024)) == {"many": 5, "few": 1}
    assert plan_waiting({"one": many, "other": many}, Budget(6, 1024)) == {"one": 3, "other": 3}
    assert plan_waiting({"many": many, "large": Wish(1, 20.0, 2000)}, Budget(3, 1024)) == {"many": 3}


def test_a_hint_weighs_as_much_as_creates() -> None:
    hinted = wish_of(expecting(Demand(), 0, 4, 60), 1, 32)
    used = wish_of(created(0, 0, 0, 0), 1, 32)
    assert plan_waiting({"hinted": hinted, "used": used}, Budget(4, 1024)) == {"hinted": 2, "used": 2}
