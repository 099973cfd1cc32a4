"""Events of machines, and subscriptions to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from pandastack.contract.events import Event

BACKLOG = 10_000
"""How many events a slow listener may lag behind; one more ends its subscription, and it must read the state anew."""


class Events:
    """A broadcast of events to any number of listeners."""

    def __init__(self) -> None:
        self._listeners: set[MemoryObjectSendStream[Event]] = set()

    def publish(self, event: Event) -> None:
        for listener in list(self._listeners):
            try:
                listener.send_nowait(event)
            except anyio.WouldBlock:
                self._listeners.discard(listener)
                listener.close()

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[MemoryObjectReceiveStream[Event]]:
        """Every event published while the block runs."""
        send, receive = anyio.create_memory_object_stream[Event](BACKLOG)
        self._listeners.add(send)
        try:
            yield receive
        finally:
            self._listeners.discard(send)
            send.close()
            receive.close()
