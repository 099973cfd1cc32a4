"""For which snapshots machines wait, and how many: pure functions of recent creates, hints, the clock and a budget.

A create counts half after :data:`HALF_LIFE_S` seconds, and so on. Two creates within two minutes are a repeated use,
for which one machine waits; a snapshot that is used no more has none a few minutes later.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

HALF_LIFE_S = 120.0

MOST_WEIGHT = 8.0
"""Creates beyond these add no weight: a burst is forgotten as soon as a steady use."""

FORGOTTEN = 0.5
"""A demand that weighs less than this is none."""

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Demand:
    """The recent creates from one snapshot: their ``weight`` at the time ``at`` (seconds of any steady clock), and that
    ``expected`` machines shall wait until the time ``until``, whatever was created."""

    weight: float = 0.0
    at: float = 0.0
    expected: int = 0
    until: float = 0.0

    def weighs(self, now: float) -> float:
        """How many creates of this moment the recent ones are worth."""
        return float(self.weight * 0.5 ** (max(0.0, now - self.at) / HALF_LIFE_S))

    def hint(self, now: float) -> int:
        """How many machines are expected to be needed."""
        return self.expected if now < self.until else 0

    def wanted(self, now: float) -> int:
        """How many machines shall wait: none for a single create, one for two in a row, seven for many."""
        return max(0, math.floor(self.weighs(now) - 0.5), self.hint(now))

    def is_none(self, now: float) -> bool:
        """Whether it may be forgotten."""
        return self.weighs(now) < FORGOTTEN and not self.hint(now)

    def changes_in(self, now: float) -> float:
        """Seconds until fewer machines are wanted, or the demand is none, if nothing is created until then."""
        weight, ends = self.weighs(now), [self.until - now] if self.hint(now) else []
        threshold = math.floor(weight - 0.5) + 0.5 if weight >= 1.5 else FORGOTTEN
        if weight >= FORGOTTEN:
            ends.append(HALF_LIFE_S * math.log2(weight / threshold))
        return min(ends, default=math.inf)


def after_create(former: Demand, now: float) -> Demand:
    """The demand once a sandbox has been created."""
    return replace(former, weight=min(former.weighs(now) + 1.0, MOST_WEIGHT), at=now)


def expecting(former: Demand, now: float, count: int, seconds: float) -> Demand:
    """The demand with a new hint in the place of a former one: ``count`` machines for so many ``seconds``."""
    return replace(former, expected=count, until=now + seconds)


@dataclass(frozen=True)
class Budget:
    """What machines that wait for snapshots may take together."""

    machines: int
    memory_mb: int


@dataclass(frozen=True)
class Wish:
    """What one snapshot wants: ``count`` machines of ``memory_mb`` each. Of a budget it gets a share by ``weight``."""

    count: int
    weight: float
    memory_mb: int


def wish_of(demand: Demand, now: float, memory_mb: int) -> Wish:
    """What the snapshot of ``demand`` wants now."""
    return Wish(demand.wanted(now), max(demand.weighs(now), demand.hint(now)), memory_mb)


def plan_waiting(wishes: Mapping[_Key, Wish], budget: Budget) -> dict[_Key, int]:
    """How many machines wait for each snapshot; of those that get none, there is no entry.

    One after the other, each goes to the snapshot with the most demand for each machine that it would have then.
    """
    given: dict[_Key, int] = {}
    left = budget.memory_mb
    open_ = {key: wish for key, wish in wishes.items() if wish.count}
    for _ in range(budget.machines):
        open_ = {key: wish for key, wish in open_.items() if wish.memory_mb <= left and given.get(key, 0) < wish.count}
        if not open_:
            break
        key = max(open_, key=lambda key: open_[key].weight / (given.get(key, 0) + 1))
        given[key] = given.get(key, 0) + 1
        left -= open_[key].memory_mb
    return given
