"""Events inside the control plane, delivered to its parts that subscribe. Nothing here is stored."""

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
    """A record was created (``before`` is None) or changed; ``moved``: its status was set."""

    before: SandboxRecord | None
    record: SandboxRecord
    moved: bool = False


@dataclass(frozen=True, slots=True)
class SandboxUsed:
    """The sandbox came into use: the first operation in progress has begun."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class CommandEnded:
    """A command has ended in the sandbox."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class DeletionFailed:
    """A deletion failed: the sandbox stays ``stopping`` until the deletion is tried again."""

    sandbox_id: str


class Bus:
    """Delivers to each subscriber the events of its kinds, in the order of publication.

    A subscriber must not wait for anything but the next event: events that it has not received yet stay in memory.
    """

    def __init__(self) -> None:
        self._subscribers: list[tuple[tuple[type, ...], MemoryObjectSendStream[Any]]] = []

    def publish(self, event: object) -> None:
        """Hand ``event`` to all current subscribers. Does not wait."""
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
