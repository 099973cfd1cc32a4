"""Whether the event loop keeps running while something slow is done."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from pandastack.host.tasks import beside

PATIENCE = 20.0


@asynccontextmanager
async def slowed(work: Callable[..., Any]) -> AsyncIterator[Callable[..., Any]]:
    """``work``, but each call first waits until the event loop has done something else meanwhile.

    A call on the event loop itself waits in vain, and fails.
    """
    asked, turned = threading.Event(), threading.Event()

    async def turn() -> None:
        while True:
            if asked.is_set():
                turned.set()
            await anyio.sleep(0.001)

    def slow(*arguments: Any, **named: Any) -> Any:
        turned.clear()
        asked.set()
        assert turned.wait(PATIENCE), "the event loop stands still"
        return work(*arguments, **named)

    async with beside(turn):
        yield slow
