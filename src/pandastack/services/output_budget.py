"""Bounds the output of guests that may wait in the server's memory at once.

Answers that are sent whole (``exec``, cells, searches) are collected first, and one caller with many commands could
otherwise take all memory of a process that serves all callers. Streamed output is bounded by its windows.
"""

from __future__ import annotations

from collections import Counter

from pandastack.errors import QuotaError
from pandastack.services.settings import MIB, Settings

_SMALLEST = MIB // 16  # bytes that must be free for a new lease


class OutputBudget:
    """Counts bytes for each sandbox and for all together."""

    def __init__(self, settings: Settings) -> None:
        self._most_of_one = settings.max_sandbox_buffer_bytes
        self._most = settings.max_buffer_bytes
        self._held: Counter[str] = Counter()
        self._total = 0

    def lease(self, sandbox_id: str) -> Lease:
        """A lease that grows as output arrives; the caller closes it.

        Raises :class:`QuotaError` when nothing is left.
        """
        if self.take(sandbox_id, _SMALLEST):
            self.give_back(sandbox_id, _SMALLEST)
            return Lease(self, sandbox_id)
        raise QuotaError(
            f"too much output of sandbox {sandbox_id}, or of all sandboxes, is waiting to be fetched",
            hint="fetch the answers of earlier requests, stream large output, or ask the operator to raise"
            " PANDASTACK_MAX_SANDBOX_BUFFER_BYTES or PANDASTACK_MAX_BUFFER_BYTES",
        )

    def take(self, sandbox_id: str, size: int) -> bool:
        """Count ``size`` more bytes, if the budget allows them."""
        if self._held[sandbox_id] + size > self._most_of_one or self._total + size > self._most:
            return False
        self._held[sandbox_id] += size
        self._total += size
        return True

    def give_back(self, sandbox_id: str, size: int) -> None:
        """Give ``size`` bytes back."""
        self._total -= size
        self._held[sandbox_id] -= size
        if not self._held[sandbox_id]:
            del self._held[sandbox_id]


class Lease:
    """The bytes that one answer holds, until it is closed."""

    def __init__(self, budget: OutputBudget, sandbox_id: str) -> None:
        self._budget = budget
        self._sandbox_id = sandbox_id
        self.size = 0

    def take(self, size: int) -> bool:
        """Whether ``size`` more bytes may be held."""
        taken = self._budget.take(self._sandbox_id, size)
        self.size += size if taken else 0
        return taken

    def close(self) -> None:
        """Give everything back: the answer has been sent, or abandoned."""
        size, self.size = self.size, 0
        self._budget.give_back(self._sandbox_id, size)
