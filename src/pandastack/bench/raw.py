"""The throughput of the channel itself: the same guest, a bare VMM and a minimal reader."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pandastack.bench.floor import Floor
from pandastack.errors import GuestError
from pandastack.guest import frames
from pandastack.guest.frames import HEADER_SIZE
from pandastack.guest.keys import FrameType, OpenKey, Operation
from pandastack.host.files import clone

_RECEIVE = 1 << 20
_CREDIT = 64 * 1024
_CHUNK = 32 * 1024
SILENCE_SECONDS = 60.0


@contextmanager
def bare_machine(floor: Floor) -> Iterator[RawChannel]:
    """The guest of ``floor``, restored without the platform, and its channel."""
    clone(floor.disk, floor.plan.root.path)
    with socket.socket(socket.AF_UNIX) as channel, floor.devices.open("rb") as state:
        path = floor.work / "raw.sock"
        path.unlink(missing_ok=True)
        channel.bind(str(path))
        channel.listen()
        argv = floor.argv(channel.fileno(), state.fileno())
        process = subprocess.Popen(argv, pass_fds=[channel.fileno(), state.fileno()], stdin=subprocess.DEVNULL)
        try:
            with socket.socket(socket.AF_UNIX) as guest:
                guest.settimeout(SILENCE_SECONDS)
                guest.connect(str(path))
                yield RawChannel(guest)
        finally:
            process.kill()
            process.wait()


@dataclass
class RawChannel:
    """One operation after another, blocking."""

    socket: socket.socket
    stream: int = 0

    def command(self, cmd: str) -> float:
        """Run a command and drop its output; returns MB/s of it, from the first to the last frame."""
        return self._receive(frames.encode_request(Operation.EXEC, (OpenKey.CMD, cmd.encode())))

    def download(self, path: str) -> float:
        """Read a file and drop it; returns MB/s."""
        return self._receive(frames.encode_request(Operation.READ, (OpenKey.PATH, path.encode())))

    def upload(self, path: str, data: bytes) -> float:
        """Write a file; returns MB/s."""
        started = time.perf_counter()
        self._open(frames.encode_request(Operation.WRITE, (OpenKey.PATH, path.encode())))
        window, at = frames.WINDOW, 0
        buffer = bytearray()
        while at < len(data):
            if not window:
                window += self._credit(buffer)
                continue
            piece = data[at : at + min(_CHUNK, window)]
            self.socket.sendall(frames.encode_to_guest(FrameType.DATA, self.stream, piece))
            at, window = at + len(piece), window - len(piece)
        self.socket.sendall(frames.encode_to_guest(FrameType.EOF, self.stream))
        while self._frame(buffer)[0] != FrameType.RESULT:
            pass
        return len(data) / 1e6 / (time.perf_counter() - started)

    def tunnel(self, path: str, data: bytes) -> None:
        """Send ``data`` and their end to the program at a Unix socket, and take what it sends, to its end."""
        self._open(frames.encode_request(Operation.TUNNEL, (OpenKey.PATH, path.encode())))
        window, at, owed, ended = frames.WINDOW, 0, 0, False
        buffer = bytearray()
        while True:
            while window and at < len(data):
                piece = data[at : at + min(_CHUNK, window)]
                self.socket.sendall(frames.encode_to_guest(FrameType.DATA, self.stream, piece))
                at, window = at + len(piece), window - len(piece)
            if window and not ended:
                self.socket.sendall(frames.encode_to_guest(FrameType.EOF, self.stream))
                ended, window = True, window - 1
            kind, payload = self._frame(buffer)
            if kind == FrameType.RESULT:
                return
            if kind == FrameType.CREDIT:
                window += int.from_bytes(payload, "little")
            if kind in (FrameType.DATA, FrameType.EOF):
                owed += len(payload) or 1
            if owed >= _CREDIT or kind == FrameType.EOF:
                self.socket.sendall(frames.encode_to_guest(FrameType.CREDIT, self.stream, frames.u32(owed)))
                owed = 0

    def _open(self, request: bytes) -> None:
        self.stream += 1
        self.socket.sendall(frames.encode_to_guest(FrameType.OPEN, self.stream, request))

    def _receive(self, request: bytes) -> float:
        buffer, total, owed = bytearray(), 0, 0
        started = time.perf_counter()
        self._open(request)
        while True:
            kind, payload = self._frame(buffer)
            if kind == FrameType.RESULT:
                return total / 1e6 / (time.perf_counter() - started)
            total, owed = total + len(payload), owed + len(payload)
            if owed >= _CREDIT:
                self.socket.sendall(frames.encode_to_guest(FrameType.CREDIT, self.stream, frames.u32(owed)))
                owed = 0

    def _credit(self, buffer: bytearray) -> int:
        kind, payload = self._frame(buffer)
        if kind != FrameType.CREDIT:
            raise GuestError("the guest refused the upload")
        return int.from_bytes(payload, "little")

    def _frame(self, buffer: bytearray) -> tuple[int, bytes]:
        while len(buffer) < HEADER_SIZE or len(buffer) < HEADER_SIZE + int.from_bytes(buffer[:4], "little"):
            data = self.socket.recv(_RECEIVE)
            if not data:
                raise GuestError("the bare machine ended")
            buffer += data
        end = HEADER_SIZE + int.from_bytes(buffer[:4], "little")
        kind, payload = buffer[4], bytes(memoryview(buffer)[HEADER_SIZE:end])
        del buffer[:end]
        return kind, payload
