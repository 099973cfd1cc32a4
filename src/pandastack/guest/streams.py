"""One operation in progress: the data not yet read, both windows, and the outcome."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from pandastack.errors import GuestError, PandastackError
from pandastack.guest.backlog import Backlog
from pandastack.guest.frames import WINDOW, Fields, encode_to_guest, u32
from pandastack.guest.keys import FrameType, Signal

CHUNK = 32 * 1024
"""Bytes in one DATA frame to the guest."""
_CREDIT_BATCH = 64 * 1024


class Stream:
    """The host's end of a stream. The channel's reader calls the ``on_…`` methods, which never wait.

    Of the other methods, one task uses those that send and one those that receive. Only a ``duplex`` stream is opened
    and ended by the guest.
    """

    def __init__(self, number: int, post: Callable[[bytes], None], *, duplex: bool = False) -> None:
        self.number = number
        self.opened: Fields | None = None
        self.result: Fields | None = None
        self.acknowledged = 0
        """Bytes of input that the guest has consumed."""
        self._duplex = duplex
        self._ended = False
        self._post = post
        self._error: PandastackError | None = None
        self._backlog = Backlog()
        self._may_receive = WINDOW
        self._may_send = WINDOW
        self._owed = 0
        self._abandoned = False
        self._changed: anyio.Event | None = None

    def on_data(self, kind: FrameType, payload: bytes) -> None:
        """Store a chunk; a guest that sends more than it has credit for breaks the protocol."""
        self._may_receive -= len(payload)
        if self._may_receive < 0 or not payload or self._ended:
            raise GuestError("the guest sent more than its window allows")
        if not self._abandoned:
            self._backlog.add(kind, payload)
            self._notify()

    def on_opened(self, fields: Fields) -> None:
        """The operation has begun."""
        if self.opened is not None or not self._duplex:
            raise GuestError("the guest opened a stream unasked")
        self.opened = fields
        self._notify()

    def on_end(self) -> None:
        """The guest will send no more data. The end is acknowledged like one byte of data."""
        self._may_receive -= 1
        if self._may_receive < 0 or self._ended or not self._duplex:
            raise GuestError("the guest ended a stream unasked")
        self._ended = True
        if not self._abandoned:
            self._backlog.add(FrameType.EOF, b"")
            self._notify()

    def on_credit(self, count: int) -> None:
        """The guest consumed ``count`` bytes. At least one: else it could keep the host busy for nothing."""
        if not count:
            raise GuestError("the guest gave credit for no bytes")
        self._may_send += count
        self.acknowledged += count
        if self._may_send > WINDOW:
            raise GuestError("the guest gave credit for bytes that it was never sent")
        self._notify()

    def on_result(self, fields: Fields) -> None:
        """The stream ended."""
        self.result = fields
        self._notify()

    def on_failure(self, error: PandastackError) -> None:
        """The channel has failed; chunks received before can still be read."""
        self._error = error
        self._notify()

    def abandon(self, signal: Signal = Signal.CANCEL) -> None:
        """Stop reading: drop what the guest still sends, and cancel the operation there.

        Another ``signal`` is sent instead of the cancellation.
        """
        left_before, self._abandoned = self._abandoned, True
        self._backlog.clear()
        if not left_before and self.result is None and self._error is None:
            self._post(encode_to_guest(FrameType.SIGNAL, self.number, bytes([signal])))

    async def next(self, timeout_s: float | None) -> tuple[FrameType, bytes] | None:
        """:meth:`take`, and give the guest credit for as much again."""
        item = await self.take(timeout_s)
        if item is not None:
            self.acknowledge(len(item[1]))
        return item

    async def take(self, timeout_s: float | None) -> tuple[FrameType, bytes] | None:
        """The received data as one chunk of a kind, or None when the stream ended; waits at most ``timeout_s`` seconds.

        Raises ``TimeoutError``, or :class:`GuestError` when the channel broke.
        """
        if not self._backlog and self.result is None:
            with anyio.fail_after(timeout_s):
                while not self._backlog and self.result is None:
                    await self._change()
        return self._backlog.take() if self._backlog else None

    def acknowledge(self, count: int, *, at_once: bool = False) -> None:
        """Give the guest credit, in batches, for ``count`` bytes more."""
        self._owed += count
        if self._owed >= (1 if at_once else _CREDIT_BATCH) and self.result is None and self._error is None:
            self._may_receive += self._owed
            self._post(encode_to_guest(FrameType.CREDIT, self.number, u32(self._owed)))
            self._owed = 0

    async def wait_opened(self, timeout_s: float) -> Fields | None:
        """The guest's answer when the operation has begun, or None when it ended before."""
        with anyio.fail_after(timeout_s):
            while self.opened is None and self.result is None:
                await self._change()
        return self.opened

    async def wait_acknowledged(self, beyond: int) -> int:
        """How much input the guest has consumed, once that is more than ``beyond`` or the stream ended."""
        while self.acknowledged <= beyond and self.result is None:
            await self._change()
        return self.acknowledged

    async def send(self, data: bytes, timeout_s: float | None = None) -> bool:
        """Send input; waits for credit, at most ``timeout_s`` seconds a piece. Returns False when the stream ended."""
        view = memoryview(data)
        while view and self.result is None:
            if not self._may_send or self._error:
                with anyio.fail_after(timeout_s):
                    await self._change()
                continue
            piece = view[: min(CHUNK, self._may_send)]
            self._may_send -= len(piece)
            self._post(encode_to_guest(FrameType.DATA, self.number, bytes(piece)))
            view = view[len(piece) :]
        return self.result is None

    async def send_end(self) -> bool:
        """End a duplex stream's input, which takes one byte of the window. Returns False when the stream ended."""
        while not self._may_send and self.result is None:
            await self._change()
        if self.result is None and self._error is None:
            self._may_send -= 1
        self.end_input()
        return self.result is None

    def end_input(self) -> None:
        """Tell the guest that there is no more input."""
        if self.result is None and self._error is None:
            self._post(encode_to_guest(FrameType.EOF, self.number))

    def signal(self, number: int) -> None:
        """Send a signal (1 to 64) to the process group."""
        if self.result is None and self._error is None:
            self._post(encode_to_guest(FrameType.SIGNAL, self.number, bytes([number])))

    def resize(self, rows: int, columns: int) -> None:
        """Tell a terminal its size."""
        if self.result is None and self._error is None:
            size = rows.to_bytes(2, "little") + columns.to_bytes(2, "little")
            self._post(encode_to_guest(FrameType.RESIZE, self.number, size))

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
