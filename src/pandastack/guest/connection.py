"""The host's end of the channel (docs/design/0001-guest-channel.md): one task reads, one writes, for all streams."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Self

import anyio
import structlog
from anyio.abc import ByteStream, TaskGroup

from pandastack.errors import BadRequestError, ConflictError, GuestError, PandastackError
from pandastack.guest import frames
from pandastack.guest.answers import Answers
from pandastack.guest.frames import Frame
from pandastack.guest.identity import Identity, resume_payload
from pandastack.guest.keys import SUPPORTED, VERSION, FrameType, HelloKey, ResumedKey
from pandastack.guest.pace import Pace
from pandastack.guest.streams import Stream

log = structlog.get_logger()

_STREAMS_MAX = 4096
_OUTBOX_MAX = 64 * 1024 * 1024
_RECEIVE = 256 * 1024
_CLOCK_TOLERANCE_S = 0.05
_CLOCK_TRIES = 3
_SPOKEN = " and ".join(map(str, sorted(SUPPORTED)))


class Connection:
    """Sends and receives frames over a byte stream that it owns. Use as ``async with``, within one task.

    A guest that breaks the protocol, or goes away, ends the connection: every operation raises :class:`GuestError`.
    """

    def __init__(self, stream: ByteStream) -> None:
        self.version = VERSION
        """The protocol version of the guest's agent; valid once the agent has stated it."""
        self._stream = stream
        self._decoder = frames.Decoder()
        self._streams: dict[int, Stream] = {}
        self._last = 0
        self._outbox: list[bytes] = []
        self._outbox_size = 0
        self._outbox_filled = anyio.Event()
        self._held: list[bytes] | None = None
        self._begun = anyio.Event()
        self._closed = anyio.Event()
        self._error: PandastackError | None = None
        self._group: TaskGroup | None = None
        self._answers = {kind: Answers(unasked=kind is FrameType.HELLO) for kind in _ANSWERS}

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._read)
        self._group.start_soon(self._write)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None
        self._fail(GuestError("the channel was closed"))
        self._group.cancel_scope.cancel()
        try:
            # The task group does not get the block's error: it would wrap it into an exception group.
            await self._group.__aexit__(None, None, None)
        finally:
            await anyio.aclose_forcefully(self._stream)

    async def hello(self, timeout_s: float) -> None:
        """Wait for a booting guest's HELLO, at most ``timeout_s`` seconds; raises GuestError otherwise."""
        payload = await self._answer(FrameType.HELLO, timeout_s)
        self._agree(frames.integer(frames.decode_fields(payload), HelloKey.VERSION))

    def _agree(self, version: int) -> None:
        """Adopt the version that the guest's agent speaks: machines outlive the release that made them."""
        if version not in SUPPORTED:
            raise GuestError(
                f"the guest's agent speaks version {version} of the channel's protocol, and this server {_SPOKEN}",
                hint="use a release of pandastack that speaks it, or create the sandbox from a newly built template",
            )
        self.version = version

    async def resume(self, identity: Identity, *, at_frame_boundary: bool, timeout_s: float) -> None:
        """Give a booted or restored guest its identity and wait until it is applied (fail closed: GuestError).

        ``at_frame_boundary`` says that the guest's parser is at one: the snapshot was captured inside
        :meth:`quiesced`, or the guest just booted. Earlier streams are detached.
        """
        nonce = os.urandom(frames.NONCE_SIZE)
        message = frames.encode_to_guest(FrameType.RESUME, 0, resume_payload(nonce, identity))
        self.check()
        self._forget_streams()
        self._answers[FrameType.RESUMED].forget()
        self._decoder.resync(nonce)
        sent = time.monotonic()
        self.post(message if at_frame_boundary else bytes(frames.ZERO_RUN) + message)
        fields = frames.decode_fields(await self._answer(FrameType.RESUMED, timeout_s))
        if ResumedKey.ERROR in fields:
            reason = frames.text(fields, ResumedKey.ERROR)[:300]
            raise GuestError(f"the guest did not apply its identity: {reason}")
        self._agree(frames.integer(fields, ResumedKey.VERSION, 1))  # version 1 reports nothing
        if not identity.frozen:  # the correction would thaw its programs
            await self._correct_clock(time.monotonic() - sent, timeout_s)

    async def _correct_clock(self, late_s: float, timeout_s: float) -> None:
        """Correct the clock of a guest that may have got the time ``late_s`` seconds late, as on a busy host."""
        for _ in range(_CLOCK_TRIES):
            if late_s <= _CLOCK_TOLERANCE_S:
                return
            self.thaw()
            late_s = await self.ping(timeout_s)

    async def ping(self, timeout_s: float = 5.0) -> float:
        """Seconds until the guest's agent answered."""
        began = time.monotonic()
        self.post(frames.encode_to_guest(FrameType.PING))
        await self._answer(FrameType.PONG, timeout_s)
        return time.monotonic() - began

    async def quiesce(self, timeout_s: float, *, freeze: bool = False) -> None:
        """Wait until the guest has consumed everything sent so far. For a capture use :meth:`quiesced`.

        With ``freeze`` its programs are frozen until :meth:`thaw` or :meth:`resume`, also when this raises.
        """
        self.post(_quiesce(freeze))
        await self._answer(FrameType.QUIET, timeout_s)

    def thaw(self) -> None:
        """After the machine's CPUs were paused and resumed: set its clock and thaw its programs."""
        self.post(frames.encode_to_guest(FrameType.THAW, payload=frames.u64(time.time_ns())))

    @asynccontextmanager
    async def quiesced(self, timeout_s: float, *, freeze: bool = False) -> AsyncIterator[None]:
        """Inside this block the guest's parser is at a frame boundary: frames sent meanwhile wait for the block's end.

        With ``freeze`` its programs are frozen too, so that none runs in a copy without an identity of its own.
        """
        with self._hold(_quiesce(freeze), thaw=freeze):
            await self._answer(FrameType.QUIET, timeout_s)
            yield

    async def wait_closed(self) -> PandastackError:
        """Wait until the connection ends; returns why. Nothing is read before the first request to the guest."""
        await self._closed.wait()
        assert self._error is not None
        return self._error

    def check(self) -> None:
        """Raise :class:`GuestError` when the connection has ended."""
        if self._error is not None:
            raise GuestError(self._error.message) from self._error

    def post(self, data: bytes) -> None:
        """Queue whole frames. Never waits, so that a cancelled task cannot cut a frame; credit bounds the queue."""
        if self._error is not None:
            return
        self._begun.set()
        (self._outbox if self._held is None else self._held).append(data)
        self._outbox_size += len(data)
        if self._outbox_size > _OUTBOX_MAX:
            self._fail(GuestError("the guest has stopped reading its channel"))
        self._outbox_filled.set()

    @contextmanager
    def open(self, request: bytes, *, duplex: bool = False) -> Iterator[Stream]:
        """A stream for the operation described by the TLV list ``request``; leaving early cancels it.

        A ``duplex`` one is opened by the guest, and ended by either side for itself.
        """
        self.check()
        if len(request) > frames.PAYLOAD_MAX:
            raise BadRequestError("the request is too long for the guest", hint="arguments and environment: 64 KiB")
        if len(self._streams) >= _STREAMS_MAX:
            raise GuestError("the guest does not finish its operations")
        stream = Stream(self._next_number(), self.post, duplex=duplex)
        self._streams[stream.number] = stream
        self.post(frames.encode_to_guest(FrameType.OPEN, stream.number, request))
        try:
            yield stream
        finally:
            stream.abandon()

    def _next_number(self) -> int:
        self._last = self._last % 0xFFFFFFFF + 1
        while self._last in self._streams:
            self._last = self._last % 0xFFFFFFFF + 1
        return self._last

    async def _answer(self, kind: FrameType, timeout_s: float) -> bytes:
        self.check()
        self._begun.set()
        answers = self._answers[kind]
        ticket = answers.ask()
        try:
            with anyio.fail_after(timeout_s):
                while not answers.has(ticket):
                    self.check()
                    await answers.change()
        except TimeoutError as error:
            raise GuestError(f"the guest sent no {kind.name} within {timeout_s:g} seconds") from error
        return answers.payload

    @contextmanager
    def _hold(self, last: bytes, *, thaw: bool) -> Iterator[None]:
        """Queue ``last``, and nothing behind it inside the block. Afterwards the ``thaw``, if any, is sent first."""
        self.check()
        if self._held is not None:
            raise ConflictError("the guest is being captured already")
        self.post(last)
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            if thaw:
                self.thaw()
            self._outbox += held
            self._outbox_filled.set()

    async def _read(self) -> None:
        # A restored guest's output cannot be decoded until resume() knows which nonce to look for.
        await self._begun.wait()
        try:
            pace = Pace()
            while True:
                data = await self._stream.receive(_RECEIVE)
                pace.begin()
                for frame in self._decoder.feed(data):
                    self._take(frame)
                    if pace.is_over(len(frame.payload)):
                        await pace.give_way()
                pace.end()
        except GuestError as error:
            self._fail(error)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
            self._fail(_caused(GuestError("the guest closed its channel"), error))

    async def _write(self) -> None:
        try:
            while True:
                await self._outbox_filled.wait()
                self._outbox_filled = anyio.Event()
                await self._flush()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
            self._fail(_caused(GuestError("the guest closed its channel"), error))

    async def _flush(self) -> None:
        while self._outbox:
            data, self._outbox = b"".join(self._outbox), []
            self._outbox_size -= len(data)
            await self._stream.send(data)

    def _take(self, frame: Frame) -> None:
        if frame.type in self._answers:
            self._answers[frame.type].give(frame.payload)
            return
        stream = self._streams.get(frame.stream)
        if stream is None:
            raise GuestError("the guest sent a frame for a stream that is not open")
        if frame.type is FrameType.CREDIT:
            if len(frame.payload) != 4:
                raise GuestError("the guest sent a malformed credit")
            stream.on_credit(int.from_bytes(frame.payload, "little"))
        elif frame.type is FrameType.OPENED:
            stream.on_opened(frames.decode_fields(frame.payload))
        elif frame.type is FrameType.EOF:
            stream.on_end()
        elif frame.type is FrameType.RESULT:
            if len(frame.payload) > frames.RESULT_MAX:
                raise GuestError("the guest sent a result that is too long")
            stream.on_result(frames.decode_fields(frame.payload))
            del self._streams[frame.stream]
        else:
            stream.on_data(frame.type, frame.payload)

    def _forget_streams(self) -> None:
        for stream in self._streams.values():
            stream.on_failure(GuestError("the guest was resumed: earlier streams are detached"))
        self._streams.clear()

    def _fail(self, error: PandastackError) -> None:
        if self._error is not None:
            return
        self._error = error
        log.debug("channel.closed", reason=error.message)
        for stream in self._streams.values():
            stream.on_failure(error)
        self._streams.clear()
        self._outbox.clear()
        for answers in self._answers.values():
            answers.wake()
        self._closed.set()


_ANSWERS = (FrameType.HELLO, FrameType.RESUMED, FrameType.QUIET, FrameType.PONG)


def _quiesce(freeze: bool) -> bytes:
    return frames.encode_to_guest(FrameType.QUIESCE, payload=b"\1" if freeze else b"")


def _caused(error: GuestError, cause: BaseException) -> GuestError:
    error.__cause__ = cause
    return error
