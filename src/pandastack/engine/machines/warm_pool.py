"""Machines made before they are needed: a create then has no process to start and no state to load.

For each template there are two kinds: *rehearsed* ones, which become new sandboxes, and *blank* ones, which are loaded
with a sandbox's capture: for forks, wakes and sandboxes from a snapshot. Snapshots that are used again and again have
machines of their own, which have loaded them (:mod:`pandastack.engine.machines.waiting`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.engine import origins
from pandastack.engine.machines.allocation import MachineHost
from pandastack.engine.machines.demand import Budget
from pandastack.engine.machines.run import run_booted, run_machine
from pandastack.engine.machines.sandbox import Sandbox, WarmMachine
from pandastack.engine.machines.stopwatch import Stopwatch
from pandastack.engine.machines.turns import Turns
from pandastack.engine.machines.waiting import Waiting
from pandastack.engine.origins.origin import BootOrigin, Origin
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import PandastackError
from pandastack.host import facts

log = structlog.get_logger(__name__)


MOST_BLANK = 16
"""The most blank machines that wait for a template after a burst: as many as the largest fork tree has."""

MOST_WAITING = 1000
"""The most claims that wait for their turn; further ones are refused."""

MOMENT_S, MOST_MOMENTS_S = 0.25, 1.0
"""Seconds that a sandbox from a snapshot has for what it was made for, before machines are made for snapshots again:
after each claim, and at most when one claim follows the other."""

FIRST_RETRY_S, LAST_RETRY_S = 1.0, 16.0
"""Seconds until missing machines are tried again, the first time and at most: one failed, or the host had no room."""


@dataclass
class _Stock:
    """The waiting machines of one template."""

    template: Origin
    rehearsed: deque[WarmMachine] = field(default_factory=deque)
    blank: deque[WarmMachine] = field(default_factory=deque)
    asked: int = 0
    """How many blank machines were claimed since the stock was last full: as many may be wanted at once again."""


class WarmPool:
    """``depth`` machines of each kind, made ahead for each template in use; after a burst, as many blank ones as it
    claimed.

    A claim that finds a rehearsed machine has it at once. To load a guest takes a core, so all other claims take turns,
    as many at a time as the host has cores: in a burst the first are served soon and none much later.
    """

    def __init__(self, host: MachineHost, lives: TaskGroup, depth: int, budget: Budget) -> None:
        self._host = host
        self._lives = lives
        self._depth = depth
        self._stocks: dict[tuple[str, str], _Stock] = {}
        """By owner and name of the template."""
        self._short = anyio.Event()
        self.snapshots = Waiting(budget, self._look_again)
        self._turns, self._boots = (Turns(facts.cores(), MOST_WAITING) for _ in range(2))
        self._claims = 0
        self._claimed_at = -math.inf
        """When the last claim ended."""
        self._calm = anyio.Event()
        self._calm.set()

    async def claim(self, origin: Origin, spec: SandboxSpec, clock: Stopwatch) -> Sandbox:
        """A sandbox in a machine made ahead, else in a new one, by the same path.

        A waiting machine may have died, or die now; that alone does not fail the claim. A claim may be cancelled until
        it has its machine, and then is carried out: nobody else would know of the machine.
        """
        with self._without_refill():
            sandbox = await _claim_first(self._take_rehearsed(origin), spec, origin, clock)
            if sandbox is not None:
                return sandbox
            async with self._turns.turn():
                clock.lap("turn")
                sandbox = await _claim_first(self._take_suitable(origin), spec, origin, clock)
                return sandbox or await self._claim_new(origin, spec, clock)

    async def boot(self, origin: BootOrigin, spec: SandboxSpec, clock: Stopwatch) -> Sandbox:
        """A sandbox in a new machine that boots. Boots take turns among themselves: each takes a core for seconds."""
        with self._without_refill():
            async with self._boots.turn():
                clock.lap("turn")
                with anyio.CancelScope(shield=True):
                    machine: WarmMachine = await self._lives.start(partial(run_booted, self._host, origin))
                    sandbox = await machine.claim(spec, origin, clock)
                return sandbox  # noqa: RET504  as below

    @contextmanager
    def _without_refill(self) -> Iterator[None]:
        """While a claim waits or is in progress no machine is made ahead: that would compete with it for CPUs."""
        self._claims += 1
        if self._claims == 1:
            self._calm = anyio.Event()
        try:
            yield
        finally:
            self._claims -= 1
            self._claimed_at = anyio.current_time()
            if self._claims == 0:
                self._calm.set()

    def _take_rehearsed(self, origin: Origin) -> Iterator[WarmMachine]:
        for stock in list(self._stocks.values()):  # a template may be installed during a claim
            if stock.template.snapshot == origin.snapshot:
                yield from self._take_all(stock.rehearsed)
        yield from self.snapshots.take(origin)

    def _take_suitable(self, origin: Origin) -> Iterator[WarmMachine]:
        yield from self._take_rehearsed(origin)  # one may have become ready during the wait
        for stock in list(self._stocks.values()):
            if origins.fits(stock.template, origin):
                stock.asked += 1
                yield from self._take_all(stock.blank)

    def _look_again(self) -> None:
        """Machines may be missing."""
        self._short.set()

    def _take_all(self, waiting: deque[WarmMachine]) -> Iterator[WarmMachine]:
        self._look_again()
        while waiting:
            machine = waiting.popleft()
            if machine.usable:
                yield machine

    def waiting(self) -> list[list[WarmMachine]]:
        """The machines that can be claimed now: for each template in use its rehearsed ones, then its blank ones; after
        them those of each snapshot."""
        kinds = [kind for stock in self._stocks.values() for kind in (stock.rehearsed, stock.blank)]
        return [*([each for each in kind if each.usable] for kind in kinds), *self.snapshots.usable()]

    def replenish(self, template: Origin) -> None:
        """Register that ``template`` is in use; missing machines are made in the background."""
        place = _place(template)
        former = self._stocks.get(place)
        if former is None or former.template != template:
            self._stocks[place] = _Stock(template)
            _dismiss(former)
        self._look_again()

    def forget(self, template: Origin) -> None:
        """Make no more machines of ``template``, which nobody can use any more."""
        _dismiss(self._stocks.pop(_place(template), None))

    def start(self, templates: Iterable[Origin], has_room: Callable[[Origin], bool]) -> None:
        """Make machines ahead from now on, those of ``templates`` first, as long as the host ``has_room`` for them."""
        self._lives.start_soon(self._refill, has_room)
        for template in templates:
            self.replenish(template)

    def shrink_until(self, fits: Callable[[], bool]) -> None:
        """Dismiss waiting machines until the rest ``fits``: first those of snapshots, then of the kind of which most
        wait."""
        while not fits():
            if self.snapshots.dismiss_one():
                continue
            kinds = [kind for stock in self._stocks.values() for kind in (stock.rehearsed, stock.blank) if kind]
            if not kinds:
                return
            max(kinds, key=len).pop().dismiss()

    async def _refill(self, has_room: Callable[[Origin], bool]) -> None:
        """Make missing machines, one at a time and only while no claim is waiting. Runs until cancelled."""
        retry_s = FIRST_RETRY_S
        while True:
            short = self._is_short()
            with anyio.move_on_after(min(retry_s if short else math.inf, self.snapshots.changes_in())) as patience:
                await self._short.wait()
            retry_s = min(2 * retry_s, LAST_RETRY_S) if short and patience.cancelled_caught else FIRST_RETRY_S
            self._short = anyio.Event()
            for stock in list(self._stocks.values()):
                await self._fill(stock, stock.rehearsed, has_room, rehearsed=True)
                await self._fill(stock, stock.blank, has_room, rehearsed=False)
                stock.asked = 0
            await self._fill_snapshots(has_room)

    def _is_short(self) -> bool:
        kinds = ((stock, kind) for stock in self._stocks.values() for kind in (stock.rehearsed, stock.blank))
        return any(self._short_of(stock, kind) for stock, kind in kinds) or self.snapshots.find_missing() is not None

    def _short_of(self, stock: _Stock, waiting: deque[WarmMachine]) -> bool:
        burst = min(stock.asked, MOST_BLANK) if waiting is stock.blank and self._depth else 0
        return sum(each.usable for each in waiting) < max(self._depth, burst)

    async def _fill(
        self, stock: _Stock, waiting: deque[WarmMachine], has_room: Callable[[Origin], bool], *, rehearsed: bool
    ) -> None:
        while self._is_in_use(stock) and self._short_of(stock, waiting) and has_room(stock.template):
            await self._calm.wait()
            try:
                machine = await self._start(stock.template, rehearsed=rehearsed)
            except PandastackError as error:
                log.warning("warm_pool.refill_failed", template=stock.template.name, reason=str(error))
                return
            waiting.append(machine)
            if not self._is_in_use(stock):
                _dismiss(stock)

    async def _fill_snapshots(self, has_room: Callable[[Origin], bool]) -> None:
        self.snapshots.trim()
        while (origin := self.snapshots.find_missing()) is not None and has_room(origin):
            with anyio.move_on_after(MOST_MOMENTS_S):
                await self._a_moment()
            await self._calm.wait()
            try:
                machine = await self._start(origin, rehearsed=True)
            except PandastackError as error:
                log.warning("warm_pool.snapshot_failed", template=origin.name, reason=str(error))
                self.snapshots.forget(origin.snapshot.directory)  # until it is used again
                return
            self.snapshots.add(origin, machine)
        self.snapshots.trim()

    async def _a_moment(self) -> None:
        """Wait until the last claim is a moment ago: its sandbox would compete with a new machine for CPUs."""
        await self._calm.wait()
        while (left := self._claimed_at + MOMENT_S - anyio.current_time()) > 0:
            await anyio.sleep(left)
            await self._calm.wait()

    def _is_in_use(self, stock: _Stock) -> bool:
        """Whether the template was neither replaced nor deleted."""
        return self._stocks.get(_place(stock.template)) is stock

    async def _claim_new(self, origin: Origin, spec: SandboxSpec, clock: Stopwatch) -> Sandbox:
        with anyio.CancelScope(shield=True):
            sandbox = await (await self._start(origin, rehearsed=False)).claim(spec, origin, clock)
        return sandbox  # noqa: RET504  mypy takes a CancelScope for one that may swallow errors

    async def _start(self, template: Origin, *, rehearsed: bool) -> WarmMachine:
        machine: WarmMachine = await self._lives.start(partial(run_machine, self._host, template, rehearsed=rehearsed))
        return machine


def _place(template: Origin) -> tuple[str, str]:
    return template.template.owner, template.name


def _dismiss(stock: _Stock | None) -> None:
    for outdated in (*stock.rehearsed, *stock.blank) if stock else ():
        outdated.dismiss()


async def _claim_first(
    machines: Iterable[WarmMachine], spec: SandboxSpec, origin: Origin, clock: Stopwatch
) -> Sandbox | None:
    """The sandbox in the first of ``machines`` that becomes it; ``None`` when none does."""
    sandbox: Sandbox | None = None
    with anyio.CancelScope(shield=True):
        for machine in machines:
            try:
                sandbox = await machine.claim(spec, origin, clock)
                break
            except PandastackError as error:
                log.warning("warm_machine.failed", template=origin.name, reason=str(error))
    return sandbox
