"""The open sessions: what each one runs, how many a database takes, and whom a cancel key means."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import anyio
import structlog

from pandastack.errors import PandastackError
from pandastack.gateway.postgres.messages import TOO_MANY_CONNECTIONS, Cancel, Refusal, cancel_packet, key_data
from pandastack.gateway.reach import Reach
from pandastack.gateway.stream import SleepingStream
from pandastack.model.databases import DatabaseRoute

USE_SECONDS = 0.5
"""How often a session that runs something is noted as use of its sandbox."""
_CANCEL_SECONDS = 10.0
_KEY_BYTES, _LONG_KEY_BYTES = 4, 32
"""The sizes of a cancel key in protocol 3.0 and, from 3.2 on, ours."""

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Session:
    """A client that is connected with the server of its database."""

    route: DatabaseRoute
    pid: int
    key: bytes
    """What the client got in place of the server's own process id and cancel key."""
    stream: SleepingStream | None = None
    backend: tuple[int, bytes] | None = None
    """The server's own, once it has told."""
    ready: bool = False
    """Whether the client is logged in."""
    running: bool = True
    """Whether the client has sent something that the server has not finished."""
    cancelling: anyio.Event | None = None
    """Set at the end of a cancel that is under way: until then nothing of the client's goes on, so it hits no later
    query."""

    @property
    def key_data(self) -> bytes:
        """The message that tells the client its cancel key."""
        return key_data(self.pid, self.key)


@dataclass(eq=False)
class _Database:
    """``users``: who is in here, waiting or not. ``taken``: those of them that the server has, or is to get."""

    logins: anyio.Semaphore
    users: int = 0
    taken: int = 0


@dataclass(eq=False)
class Place:
    """A client's place at a database. At most half of the places are for clients that log in."""

    database: _Database
    is_login: bool = True

    def authenticated(self) -> None:
        """Note that the client does not log in any more: the next one may."""
        if self.is_login:
            self.is_login = False
            self.database.logins.release()


class Sessions:
    """The sessions of one door."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._by_pid: dict[int, Session] = {}
        self._databases: dict[str, _Database] = {}

    @asynccontextmanager
    async def place(self, id: str, most: int) -> AsyncIterator[Place]:
        """A place at the database, for the length of the block. Raises :class:`Refusal` when all are taken.

        Waits while half of them are taken by clients that log in: nobody without a password can take all.
        """
        database = self._databases.setdefault(id, _Database(anyio.Semaphore(max(1, most // 2))))
        database.users += 1
        try:
            await database.logins.acquire()
            place = Place(database)
            try:
                if database.taken >= most:
                    raise Refusal(TOO_MANY_CONNECTIONS, "sorry, too many clients already", f"the most are {most}")
                database.taken += 1
                try:
                    yield place
                finally:
                    database.taken -= 1
            finally:
                place.authenticated()
        finally:
            database.users -= 1
            if not database.users:
                del self._databases[id]

    @contextmanager
    def session(self, route: DatabaseRoute, *, long_key: bool) -> Iterator[Session]:
        """A session with a cancel key of its own, for the length of the block."""
        pid = secrets.randbelow(2**31 - 1) + 1
        while pid in self._by_pid:
            pid = secrets.randbelow(2**31 - 1) + 1
        session = Session(route, pid, secrets.token_bytes(_LONG_KEY_BYTES if long_key else _KEY_BYTES))
        self._by_pid[pid] = session
        try:
            yield session
        finally:
            del self._by_pid[pid]

    async def cancel(self, wanted: Cancel) -> None:
        """Cancel what a session runs, if it runs something and the key is its own; return once that was done."""
        session = self._by_pid.get(wanted.pid)
        if session is None or not hmac.compare_digest(session.key, wanted.key):
            return
        awake = session.stream is not None and session.stream.tunnel.is_attached
        if session.backend is None or not session.running or session.cancelling is not None or not awake:
            return
        session.cancelling = anyio.Event()
        try:
            with anyio.move_on_after(_CANCEL_SECONDS), suppress(PandastackError, anyio.EndOfStream):
                async with self._reach.stream(session.route.sandbox, port=session.route.port) as stream:
                    await stream.send(cancel_packet(*session.backend))
                    await stream.receive()  # the server closes once it has told the session
        finally:
            session.cancelling.set()
            session.cancelling = None

    async def report_use(self) -> None:
        """Note which sandboxes have sessions that run something, until cancelled. A transaction that waits for its
        client is none: it sleeps with its database."""
        while True:
            await anyio.sleep(USE_SECONDS)
            for session in self._by_pid.values():
                if session.ready and session.running:
                    self._reach.use(session.route.sandbox)
