"""Whether a machine is stalled: paused because the host's disk is full.

QEMU pauses the guest when a write finds no room (``werror=enospc``, its default), and repeats the write when it is
resumed. It reports this by events (qapi/block-core.json, qapi/run-state.json).
"""

from __future__ import annotations

from typing import Any

import anyio


class Stall:
    """The stall state of one VMM, updated by its events."""

    def __init__(self) -> None:
        self._begun = anyio.Event()

    @property
    def lasts(self) -> bool:
        return self._begun.is_set()

    async def wait(self) -> None:
        """Wait until the machine is stalled."""
        await self._begun.wait()

    def take(self, event: dict[str, Any]) -> None:
        """Update the state with an event of the control session."""
        data = event.get("data")
        if event["event"] == "BLOCK_IO_ERROR" and isinstance(data, dict) and data.get("action") == "stop":
            self._begun.set()
        elif event["event"] == "RESUME" and self.lasts:
            self._begun = anyio.Event()
