"""The machines that wait for snapshots: which there are, and which are missing or too many.

A machine waits for one snapshot and has loaded it. :mod:`pandastack.engine.machines.demand` decides for which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from pandastack.engine.machines.demand import Budget, Demand, after_create, expecting, plan_waiting, wish_of
from pandastack.engine.machines.sandbox import WarmMachine
from pandastack.engine.origins.origin import Origin

MACHINE_MB = 32
"""What a waiting machine takes beside the pages that its snapshot has of its own."""

MOST_SNAPSHOTS = 1000
"""For so many snapshots is demand remembered."""


@dataclass
class _Stock:
    """The machines that wait for one snapshot."""

    origin: Origin
    demand: Demand = field(default_factory=Demand)
    machines: list[WarmMachine] = field(default_factory=list)
    memory_mb: int = MACHINE_MB

    def usable(self) -> list[WarmMachine]:
        return [each for each in self.machines if each.usable]


def can_wait(origin: Origin) -> bool:
    """Whether a machine may load this snapshot ahead of need, and be given away later.

    The programs in it must have been frozen at a moment that the agent chose: they then stay frozen until a sandbox has
    its identity. A snapshot with volumes is loaded when it is needed.
    """
    manifest = origin.snapshot.manifest
    return bool(manifest.parent) and manifest.at_frame_boundary and not manifest.mounts and not manifest.memory_lost


class Waiting:
    """Keeps the demand for each snapshot, and its machines. ``changed`` is called when machines may be missing."""

    def __init__(self, budget: Budget, changed: Callable[[], None]) -> None:
        self._budget = budget
        self._changed = changed
        self._stocks: dict[Path, _Stock] = {}

    def created(self, origin: Origin) -> None:
        """A sandbox has been created from the snapshot ``origin``."""
        if (stock := self._stock(origin)) is not None:
            stock.demand = after_create(stock.demand, anyio.current_time())
            self._changed()

    def expect(self, origin: Origin, count: int, seconds: float) -> None:
        """Have ``count`` machines wait for the next ``seconds``, if the budget allows, as creates are to come."""
        if (stock := self._stock(origin)) is not None:
            stock.demand = expecting(stock.demand, anyio.current_time(), count, seconds)
            self._changed()

    def forget(self, directory: Path) -> None:
        """Dismiss the machines of the snapshot in ``directory``: it is deleted, or they cannot be made."""
        if stock := self._stocks.pop(directory, None):
            _dismiss(stock.machines)

    def take(self, origin: Origin) -> Iterator[WarmMachine]:
        """The machines that wait for ``origin``. Each that is taken is no longer there."""
        stock = self._stocks.get(origin.snapshot.directory)
        while stock and stock.origin.snapshot == origin.snapshot and stock.machines:
            machine = stock.machines.pop(0)
            self._changed()
            if machine.usable:
                yield machine

    def add(self, origin: Origin, machine: WarmMachine) -> None:
        """A machine that has loaded ``origin`` waits from now on, unless the snapshot was deleted meanwhile."""
        stock = self._stocks.get(origin.snapshot.directory)
        if stock is None:
            machine.dismiss()
        else:
            stock.machines.append(machine)

    def usable(self) -> list[list[WarmMachine]]:
        """The machines that can be taken now, for each snapshot."""
        return [stock.usable() for stock in self._stocks.values()]

    def find_missing(self) -> Origin | None:
        """The snapshot that the next machine shall be made for."""
        plan = self._plan()
        return next((self._stocks[key].origin for key in plan if len(self._stocks[key].usable()) < plan[key]), None)

    def trim(self) -> None:
        """Dismiss machines for which there is too little demand, and forget snapshots without any."""
        now, plan = anyio.current_time(), self._plan()
        for directory, stock in list(self._stocks.items()):
            usable, most = stock.usable(), plan.get(directory, 0)
            stock.machines = usable[:most]
            _dismiss(usable[most:])
            if stock.demand.is_none(now):
                del self._stocks[directory]

    def changes_in(self) -> float:
        """Seconds until :meth:`trim` has something to do."""
        now = anyio.current_time()
        return min((each.demand.changes_in(now) for each in self._stocks.values()), default=float("inf"))

    def dismiss_one(self) -> bool:
        """Dismiss one machine of the snapshot with the least demand for each of its machines; whether there was one."""
        now = anyio.current_time()
        stocks = [each for each in self._stocks.values() if each.usable()]
        if not stocks:
            return False
        least = min(stocks, key=lambda each: each.demand.weighs(now) / len(each.usable()))
        machine = least.usable()[-1]
        least.machines.remove(machine)
        machine.dismiss()
        return True

    def _stock(self, origin: Origin) -> _Stock | None:
        if not self._budget.machines or not can_wait(origin):
            return None
        directory = origin.snapshot.directory
        stock = self._stocks.get(directory)
        if stock is None and len(self._stocks) >= MOST_SNAPSHOTS:
            now = anyio.current_time()
            self.forget(min(self._stocks, key=lambda key: self._stocks[key].demand.weighs(now)))
        if stock is None:
            stock = self._stocks[directory] = _Stock(origin, memory_mb=_memory_mb(origin))
        return stock

    def _plan(self) -> dict[Path, int]:
        now = anyio.current_time()
        wishes = {key: wish_of(each.demand, now, each.memory_mb) for key, each in self._stocks.items()}
        return plan_waiting(wishes, self._budget)


def _memory_mb(origin: Origin) -> int:
    pages = origin.snapshot.pages
    return MACHINE_MB + (pages.stat().st_size // 2**20 if pages.exists() else 0)


def _dismiss(machines: list[WarmMachine]) -> None:
    for each in machines:
        each.dismiss()
