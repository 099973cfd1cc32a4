"""Which builds run now and which wait: a limit for all, and turns between owners.

Of the builds that wait, the next is one of the owner who has the fewest running; among equals, of the one whose turn
was the longest ago. So one owner's twenty builds delay another's first by no more than the end of one.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio


@dataclass(eq=False)
class _Ticket:
    owner: str
    number: int
    tell: Callable[[int], None]
    called: anyio.Event = field(default_factory=anyio.Event)


@dataclass(frozen=True)
class _Turns:
    """How many builds of an owner run, and when the last of them began, as a number that grows."""

    running: int = 0
    last: int = -1


class BuildQueue:
    """Lets ``limit`` builds run at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._numbers = itertools.count()
        self._waiting: list[_Ticket] = []
        self._turns: dict[str, _Turns] = {}
        """Of the owners who have builds."""

    @property
    def running(self) -> int:
        """How many builds run."""
        return sum(each.running for each in self._turns.values())

    @asynccontextmanager
    async def turn(self, owner: str, tell: Callable[[int], None]) -> AsyncIterator[None]:
        """Wait for a turn and have it while the block runs. ``tell`` hears how many builds come before, each time that
        this may have changed while it waits."""
        ticket = _Ticket(owner, next(self._numbers), tell)
        self._waiting.append(ticket)
        try:
            self._advance()
            await ticket.called.wait()
            yield
        finally:
            if ticket.called.is_set():
                had = self._turns[owner]
                self._turns[owner] = replace(had, running=had.running - 1)
            else:
                self._waiting.remove(ticket)
            self._advance()

    def _advance(self) -> None:
        free = self._limit - self.running
        order = list(_in_order(self._waiting, self._turns, next(self._numbers)))
        for each in order[:free]:
            self._waiting.remove(each)
            had = self._turns.get(each.owner, _Turns())
            self._turns[each.owner] = _Turns(had.running + 1, next(self._numbers))
            each.called.set()
        for place, each in enumerate(order[free:]):
            each.tell(place)
        having = {each.owner for each in self._waiting}
        self._turns = {owner: each for owner, each in self._turns.items() if each.running or owner in having}


def _in_order(waiting: list[_Ticket], turns: dict[str, _Turns], now: int) -> Iterator[_Ticket]:
    """Those that wait, in the order in which they would run if none that runs now ended before."""
    left, counted = list(waiting), dict(turns)
    while left:
        following = min(left, key=lambda each: (*_rank(counted.get(each.owner, _Turns())), each.number))
        left.remove(following)
        had = counted.get(following.owner, _Turns())
        counted[following.owner] = _Turns(had.running + 1, now)
        now += 1
        yield following


def _rank(turns: _Turns) -> tuple[int, int]:
    return turns.running, turns.last
