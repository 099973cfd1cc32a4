"""What happens inside the control plane, for those of its parts that wait for it. Nothing here is stored."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from pandastack.store.sandboxes import SandboxRecord

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SandboxChanged:
    """A record is new (``before`` is None) or has other values now; ``moved`` says that its status was set."""

    before: SandboxRecord | None
    record: SandboxRecord
    moved: bool = False


@dataclass(frozen=True, slots=True)
class SandboxUsed:
    """The first of the operations that are now in progress in the sandbox has begun."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class CommandEnded:
    """A command has ended in the sandbox."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class DeletionFailed:
    """The sandbox stays ``stopping`` until it is deleted again."""

    sandbox_id: str


class Bus:
    """Each subscriber receives the events of its kinds in the order in which they were published.

    Subscribers must not wait for anything but the next event: what they have not received yet stays in memory.
    """

    def __init__(self) -> None:
        self._subscribers: list[tuple[tuple[type, ...], MemoryObjectSendStream[Any]]] = []

    def publish(self, event: object) -> None:
        """Hand ``event`` to all present subscribers. Does not wait."""
        for kinds, stream in self._subscribers:
            if isinstance(event, kinds):
                stream.send_nowait(event)

    @contextmanager
    def subscribe(self, *kinds: type[T]) -> Iterator[AsyncIterator[T]]:
        """All events of these kinds that are published while the block runs."""
        send, receive = anyio.create_memory_object_stream[T](math.inf)
        entry = (kinds, send)
        with send, receive:
            self._subscribers.append(entry)
            try:
                yield receive
            finally:
                self._subscribers.remove(entry)
