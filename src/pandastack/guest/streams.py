"""One operation in progress: what the guest sent and nobody took yet, both windows, and the outcome."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from pandastack.errors import GuestError, PandastackError
from pandastack.guest.backlog import Backlog
from pandastack.guest.frames import WINDOW, Fields, encode, u32
from pandastack.guest.keys import FrameType, Signal

CHUNK = 32 * 1024
"""Bytes in one DATA frame to the guest."""
_CREDIT_BATCH = 64 * 1024


class Stream:
    """The host's end of a stream. The channel's reader calls ``on_…``, which never wait; one task uses the rest."""

    def __init__(self, number: int, post: Callable[[bytes], None]) -> None:
        self.number = number
        self.result: Fields | None = None
        self._post = post
        self._error: PandastackError | None = None
        self._backlog = Backlog()
        self._may_receive = WINDOW
        self._may_send = WINDOW
        self._owed = 0
        self._abandoned = False
        self._changed: anyio.Event | None = None

    def on_data(self, kind: FrameType, payload: bytes) -> None:
        """Keep a chunk; a guest that sends more than it has credit for broke the protocol."""
        self._may_receive -= len(payload)
        if self._may_receive < 0 or not payload:
            raise GuestError("the guest sent more than its window allows")
        if not self._abandoned:
            self._backlog.add(kind, payload)
            self._notify()

    def on_credit(self, count: int) -> None:
        """The guest consumed ``count`` bytes, and at least one: else it could keep the host busy for nothing."""
        if not count:
            raise GuestError("the guest gave credit for no bytes")
        self._may_send += count
        if self._may_send > WINDOW:
            raise GuestError("the guest gave credit for bytes that it was never sent")
        self._notify()

    def on_result(self, fields: Fields) -> None:
        """The stream ended."""
        self.result = fields
        self._notify()

    def on_failure(self, error: PandastackError) -> None:
        """The channel is gone; chunks already here can still be taken."""
        self._error = error
        self._notify()

    def abandon(self, signal: Signal = Signal.CANCEL) -> None:
        """Take nothing more: drop what the guest still sends, and cancel the operation there.

        Another ``signal`` is sent instead of the cancellation.
        """
        left_before, self._abandoned = self._abandoned, True
        self._backlog.clear()
        if not left_before and self.result is None and self._error is None:
            self._post(encode(FrameType.SIGNAL, self.number, bytes([signal])))

    async def next(self, timeout_s: float | None) -> tuple[FrameType, bytes] | None:
        """What has come, as one chunk of a kind, or None when the stream ended; waits at most ``timeout_s`` seconds.

        Raises ``TimeoutError``, or :class:`GuestError` when the channel broke.
        """
        if not self._backlog and self.result is None:
            with anyio.fail_after(timeout_s):
                while not self._backlog and self.result is None:
                    await self._change()
        if not self._backlog:
            return None
        kind, payload = self._backlog.take()
        self._owed += len(payload)
        if self._owed >= _CREDIT_BATCH and self.result is None:
            self._may_receive += self._owed
            self._post(encode(FrameType.CREDIT, self.number, u32(self._owed)))
            self._owed = 0
        return kind, payload

    async def send(self, data: bytes, timeout_s: float | None = None) -> bool:
        """Send input; waits for credit, at most ``timeout_s`` seconds for each piece. False when the stream ended."""
        view = memoryview(data)
        while view and self.result is None:
            if not self._may_send or self._error:
                with anyio.fail_after(timeout_s):
                    await self._change()
                continue
            piece = view[: min(CHUNK, self._may_send)]
            self._may_send -= len(piece)
            self._post(encode(FrameType.DATA, self.number, bytes(piece)))
            view = view[len(piece) :]
        return self.result is None

    def end_input(self) -> None:
        """Tell the guest that there is no more input."""
        if self.result is None and self._error is None:
            self._post(encode(FrameType.EOF, self.number))

    def signal(self, number: int) -> None:
        """Send a signal (1 to 64) to the process group."""
        if self.result is None and self._error is None:
            self._post(encode(FrameType.SIGNAL, self.number, bytes([number])))

    def resize(self, rows: int, columns: int) -> None:
        """Tell a terminal its size."""
        if self.result is None and self._error is None:
            size = rows.to_bytes(2, "little") + columns.to_bytes(2, "little")
            self._post(encode(FrameType.RESIZE, self.number, size))

    async def _change(self) -> None:
        if self._error is not None:
            raise GuestError(self._error.message) from self._error
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
