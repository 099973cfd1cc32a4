"""Machines made before they are needed: a create then has no process to start and no state to load."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.engine.life import Resources, live
from pandastack.engine.sandbox import Order, Prepared, Sandbox
from pandastack.engine.templates import Installed
from pandastack.errors import PandastackError

log = structlog.get_logger(__name__)


class Ready:
    """``depth`` machines made ahead for each template that is in use."""

    def __init__(self, resources: Resources, lives: TaskGroup, depth: int) -> None:
        self._resources = resources
        self._lives = lives
        self._depth = depth
        self._waiting: dict[str, deque[Prepared]] = {}
        self._wanted: dict[str, Installed] = {}
        self._short = anyio.Event()
        self._claims = 0
        self._calm = anyio.Event()
        self._calm.set()

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """While a create is under way nothing is made ahead: it would take the CPUs from it."""
        self._claims += 1
        if self._claims == 1:
            self._calm = anyio.Event()
        try:
            yield
        finally:
            self._claims -= 1
            if self._claims == 0:
                self._calm.set()

    async def claim(self, template: Installed, order: Order) -> Sandbox:
        """A sandbox in a machine made ahead, else in a new one, by the same path.

        A waiting machine may have died, or die now, for reasons of its own: that is no reason to refuse the order.
        """
        waiting = self._waiting.get(template.key)
        while waiting:
            prepared = waiting.popleft()
            self._short.set()
            if prepared.usable:
                try:
                    return await prepared.claim(order)
                except PandastackError as error:
                    log.warning("a machine made ahead failed", template=template.name, reason=str(error))
        return await (await self._start(template, ahead=False)).claim(order)

    def replenish(self, template: Installed) -> None:
        """Say that ``template`` is in use; what is missing is made in the background."""
        former = self._wanted.get(template.name)
        if former is not None and former.key != template.key:
            for outdated in self._waiting.pop(former.key, ()):
                outdated.dismiss()
        self._wanted[template.name] = template
        self._short.set()

    async def keep(self) -> None:
        """Make what is missing, one at a time and only while nobody waits for a create. Runs until cancelled."""
        while True:
            await self._short.wait()
            self._short = anyio.Event()
            for template in list(self._wanted.values()):
                await self._fill(template)

    async def _fill(self, template: Installed) -> None:
        waiting = self._waiting.setdefault(template.key, deque())
        while sum(each.usable for each in waiting) < self._depth:
            await self._calm.wait()
            try:
                waiting.append(await self._start(template, ahead=True))
            except PandastackError as error:
                log.warning("cannot make a machine ahead", template=template.name, reason=str(error))
                return

    async def _start(self, template: Installed, *, ahead: bool) -> Prepared:
        prepared: Prepared = await self._lives.start(partial(live, self._resources, template, ahead=ahead))
        return prepared
