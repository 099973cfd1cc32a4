"""The place of one machine in the network of its host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NetworkSlot:
    """The network resources of one machine."""

    netns: Path | None
    """The namespace that its VMM runs in; ``None``: the host's own."""


class NoNetwork:
    """Slots for machines without a network: all share one empty namespace, through which they cannot communicate."""

    def __init__(self, netns: Path | None) -> None:
        self._slot = NetworkSlot(netns)

    @asynccontextmanager
    async def slot(self, number: int) -> AsyncIterator[NetworkSlot]:
        """The slot of the machine with that number, for as long as the block runs."""
        yield self._slot
