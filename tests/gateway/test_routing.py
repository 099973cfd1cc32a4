"""One question to the control plane for all requests that need its answer at once."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from pandastack.errors import PandastackError, UnavailableError
from pandastack.gateway.control import Control, Route
from pandastack.gateway.http import routing
from pandastack.gateway.http.routing import Routes

pytestmark = pytest.mark.anyio

ROUTE = Route("sandbox", 80)


class Asked(Control):
    """A control plane whose answers wait for :attr:`answer`."""

    def __init__(self) -> None:
        self.times = 0
        self.answer = anyio.Event()
        self.failure: PandastackError | None = None

    async def route(self, **_: Any) -> Route:
        self.times += 1
        await self.answer.wait()
        if self.failure is not None:
            raise self.failure
        return ROUTE


class Requests:
    """Requests for one route, and what became of them."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self.found: list[Route | PandastackError] = []

    async def one(self) -> None:
        try:
            self.found.append(await self._routes.route("sandbox", 80, None))
        except PandastackError as error:
            self.found.append(error)


async def test_requests_that_come_together_ask_once() -> None:
    control = Asked()
    requests = Requests(Routes(control))
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(requests.one)
        await anyio.wait_all_tasks_blocked()
        control.answer.set()
    assert (requests.found, control.times) == ([ROUTE] * 50, 1)


async def test_when_the_one_that_asked_leaves_another_one_asks() -> None:
    control = Asked()
    requests = Requests(Routes(control))
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as first:
            async with anyio.create_task_group() as leaving:
                leaving.start_soon(requests.one)
                await anyio.wait_all_tasks_blocked()
                for _ in range(3):
                    tasks.start_soon(requests.one)
                await anyio.wait_all_tasks_blocked()
                first.cancel()
        await anyio.wait_all_tasks_blocked()
        control.answer.set()
    assert (requests.found, control.times) == ([ROUTE] * 3, 2)


async def test_all_hear_that_the_control_plane_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "_AWAY_SECONDS", -1.0)
    control = Asked()
    control.failure = UnavailableError("away")
    requests = Requests(Routes(control))
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(requests.one)
        await anyio.wait_all_tasks_blocked()
        control.answer.set()
    assert (requests.found, control.times) == ([control.failure] * 5, 1)
