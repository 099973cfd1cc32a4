"""Answers outside of streams, which come in the order of the questions."""

from __future__ import annotations

import anyio

from pandastack.errors import GuestError


class Answers:
    """Counts the questions and answers of one kind, so that a late answer is never taken for a later one.

    ``unasked`` allows one answer before the question (the HELLO of a guest that booted faster than we asked).
    """

    def __init__(self, *, unasked: bool = False) -> None:
        self.payload = b""
        self._asked = 0
        self._given = 0
        self._unasked = unasked
        self._changed = anyio.Event()

    def ask(self) -> int:
        """Count a question; returns its ticket."""
        self._asked += 1
        return self._asked

    def has(self, ticket: int) -> bool:
        """Whether the question with this ticket has been answered; then ``payload`` is the latest answer."""
        return self._given >= ticket

    def give(self, payload: bytes) -> None:
        """Count an answer. Raises GuestError when there was no question."""
        self._given += 1
        if self._given > max(self._asked, int(self._unasked)):
            raise GuestError("the guest answered a request that was never made")
        self.payload = payload
        self.wake()

    def forget(self) -> None:
        """Give up all earlier questions: they will not be answered."""
        self._given = self._asked

    def wake(self) -> None:
        """Wake all waiters, so that they check again."""
        self._changed.set()
        self._changed = anyio.Event()

    async def change(self) -> None:
        """Wait for an answer, or for :meth:`wake`."""
        await self._changed.wait()
