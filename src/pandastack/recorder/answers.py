"""Answers of hosts, in files: written as they arrive, and read by any number of connections meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import anyio
import h11
from anyio.abc import ByteStream

from pandastack.broker.peer import GONE, Peer
from pandastack.recorder.lock import Entry
from pandastack.recorder.outside import Outside, Unreachable
from pandastack.recorder.requests import Pairs, accept_of, recorded_headers, sent_headers
from pandastack.recorder.urls import Url

_PIECE = 256 * 1024
SILENCE_SECONDS = 120.0
"""How long a host may say nothing."""


@dataclass
class Answer:
    """One answer; its body is in the file ``fd``, ``size`` bytes so far. ``failure``: why no more of it will come.

    The file is closed when all of its ``users`` have released it.
    """

    fd: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """What the host has announced."""
    size: int = 0
    whole: bool = False
    failure: str = ""
    digest: str = ""
    kept: bool = False
    """Whether the file is to stay."""
    name: str = ""
    """The file's, until it has its digest for one."""
    users: int = 1
    _changed: anyio.Event = field(default_factory=anyio.Event)

    async def begun(self) -> None:
        """Wait for status and headers. Raises :class:`Unreachable`."""
        while not self.status and not self.failure:
            await self._changed.wait()
        if self.failure:
            raise Unreachable(self.failure)

    async def body(self) -> AsyncIterator[bytes]:
        """The body, as it comes. Raises :class:`Unreachable` where it breaks off."""
        at = 0
        while True:
            if piece := os.pread(self.fd, _PIECE, at):
                at += len(piece)
                yield piece
            elif self.failure:
                raise Unreachable(self.failure)
            elif self.whole:
                return
            else:
                await self._changed.wait()

    def entry(self, method: str, url: Url) -> Entry:
        """What the lock says of it, once it is whole."""
        return Entry(method, str(url), self.status, self.size, self.digest, self.headers)

    def release(self) -> None:
        """One user has no more use of it."""
        self.users -= 1
        if not self.users:
            os.close(self.fd)

    def changed(self) -> None:
        """Wake the readers."""
        self._changed.set()
        self._changed = anyio.Event()


class Budget:
    """How many bytes may still be fetched."""

    def __init__(self, most: int) -> None:
        self.most = self.left = most

    def take(self, count: int) -> None:
        """Raises :class:`Unreachable` when there are not so many."""
        self.left -= count
        if self.left < 0:
            raise Unreachable(f"the build has fetched more than {self.most} bytes")


async def fetch(answer: Answer, outside: Outside, url: Url, method: str, given: Pairs, budget: Budget) -> None:
    """Fill an answer. What prevents it is its ``failure``; nothing is raised."""
    try:
        stream = await outside.open(url)
        try:
            await _exchange(answer, stream, url, method, given, budget)
        finally:
            await anyio.aclose_forcefully(stream)
    except Unreachable as error:
        answer.failure = str(error)
    except h11.RemoteProtocolError as error:
        answer.failure = f"{url.authority} broke the protocol: {error}"
    except TimeoutError:
        answer.failure = f"{url.authority} says nothing"
    except (*GONE, h11.LocalProtocolError) as error:
        answer.failure = f"the connection to {url.authority} broke: {error or type(error).__name__}"
    finally:
        answer.changed()


async def _exchange(answer: Answer, stream: ByteStream, url: Url, method: str, given: Pairs, budget: Budget) -> None:
    host, digest = Peer(stream, h11.CLIENT), hashlib.sha256()
    await host.send(h11.Request(method=method, target=url.target, headers=sent_headers(url, given)))
    await host.send(h11.EndOfMessage())
    while True:
        with anyio.fail_after(SILENCE_SECONDS):
            event = await host.event()
        if isinstance(event, h11.InformationalResponse):
            continue
        if isinstance(event, h11.Response):
            answer.headers = recorded_headers(list(event.headers), accept_of(given))
            announced = [value for name, value in event.headers if name == b"content-length"]
            answer.length = int(announced[0]) if announced and method != "HEAD" else None
            answer.status = event.status_code
        elif isinstance(event, h11.Data):
            budget.take(len(event.data))
            digest.update(event.data)
            _write(answer.fd, event.data)
            answer.size += len(event.data)
        elif isinstance(event, h11.EndOfMessage):
            answer.digest, answer.whole = digest.hexdigest(), True
            return
        else:
            raise Unreachable(f"{url.authority} closed the connection without a whole answer")
        answer.changed()


def _write(fd: int, data: bytes | bytearray | memoryview) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise Unreachable(f"what was fetched cannot be stored: {error.strerror}") from error


def file_sha256(fd: int) -> str:
    """The digest of a file, from its beginning. Blocks while it is read."""
    digest, at = hashlib.sha256(), 0
    while piece := os.pread(fd, 1 << 20, at):
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()
