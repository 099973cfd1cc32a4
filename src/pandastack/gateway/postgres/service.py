"""What becomes of a client that has said which database it wants: a place, a server that is awake, a session."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

import anyio
import structlog

from pandastack.errors import GuestError, NotFoundError, PandastackError
from pandastack.gateway.client_socket import ClientGone, ClientSocket
from pandastack.gateway.control import Control
from pandastack.gateway.postgres.decoy import Decoy
from pandastack.gateway.postgres.greeting import Greeted
from pandastack.gateway.postgres.login import Login
from pandastack.gateway.postgres.messages import (
    CANNOT_CONNECT_NOW,
    NEWEST_MINOR,
    Malformed,
    Refusal,
    error,
    negotiation,
    startup_packet,
)
from pandastack.gateway.postgres.names import Wanted, wanted
from pandastack.gateway.postgres.relay import pass_client, pass_server
from pandastack.gateway.postgres.sessions import Place, Session, Sessions
from pandastack.gateway.reach import Reach
from pandastack.gateway.stream import SleepingStream
from pandastack.model.databases import DatabaseRoute
from pandastack.model.previews import Waker

WAKE_SECONDS = 60.0
"""How long a client waits for a place to log in, and for a server that wakes or starts."""
LOGIN_SECONDS = 30.0
"""How long a client may take from the server's first question until it is logged in."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_WAKER = Waker.VISITOR
"""A password is checked by the database's server, so who wakes it has shown none yet."""

log = structlog.get_logger(__name__)


class Service:
    """Serves clients of all databases below ``suffixes``."""

    def __init__(
        self, suffixes: Sequence[str], secret: bytes, sessions: Sessions, reach: Reach, control: Control
    ) -> None:
        self._suffixes = suffixes
        self._secret = secret
        self._sessions = sessions
        self._reach = reach
        self._control = control

    async def serve(self, greeted: Greeted) -> None:
        """Serve a client until it or its server leaves; one that is refused is told why."""
        try:
            await self._serve(greeted)
        except Refusal as refusal:
            with suppress(ClientGone):
                await greeted.socket.send(error(refusal))
        except ClientGone:
            pass

    async def _serve(self, greeted: Greeted) -> None:
        socket, startup = greeted.socket, greeted.startup
        if startup.minor > NEWEST_MINOR or startup.extensions:
            await socket.send(negotiation(startup.minor, startup.extensions))
        want = wanted(startup, greeted.server_name, self._suffixes)
        try:
            route = await self._control.database_route(want.database)
        except NotFoundError:
            await self._refuse_slowly(socket, want, greeted.rest)
            return
        except PandastackError as error:
            raise _not_now(want, error) from error
        visit = _Visit(greeted, want, route, self._sessions, self._reach)
        await visit.run()

    async def _refuse_slowly(self, socket: ClientSocket, want: Wanted, begun: bytes) -> None:
        """Tell the client what a wrong password is told, after the same exchange."""
        decoy = Decoy(self._secret, want.database, want.user)
        await socket.send(decoy.begin())
        with anyio.move_on_after(LOGIN_SECONDS):
            data = begun or await socket.receive()
            while data and not decoy.over:
                await socket.send(decoy.feed(data))
                data = b"" if decoy.over else await socket.receive()


def _not_now(want: Wanted, cause: PandastackError | None = None) -> Refusal:
    log.warning("postgres.not_now", database=want.database, cause=repr(cause))
    return Refusal(CANNOT_CONNECT_NOW, "the database is not available yet", "try again in a moment")


class _Visit:
    """A client at a database that exists."""

    def __init__(self, greeted: Greeted, want: Wanted, route: DatabaseRoute, sessions: Sessions, reach: Reach) -> None:
        self._socket, self._begun = greeted.socket, greeted.rest
        self._long_key = greeted.startup.minor >= NEWEST_MINOR
        self._want = want
        self._route = route
        self._sessions = sessions
        self._reach = reach
        self._scope = anyio.CancelScope()
        """Ends what takes too long until the session is ready."""
        self._asked = False
        """Whether the client has got an answer of the server."""

    async def run(self) -> None:
        """Return when it is over. Raises :class:`Refusal`."""
        self._scope.deadline = anyio.current_time() + WAKE_SECONDS
        with self._scope:
            self._socket.on_gone = self._scope.cancel
            if not self._socket.gone:
                await self._enter()
        if self._scope.cancelled_caught and not (self._asked or self._socket.gone):
            raise _not_now(self._want)

    async def _enter(self) -> None:
        async with self._sessions.place(self._want.database, self._route.max_connections) as place:
            with (
                self._reach.connection(self._route.sandbox),
                self._sessions.session(self._route, long_key=self._long_key) as session,
            ):
                try:
                    await self._connect(session, place)
                except Malformed as broken:
                    log.warning("postgres.malformed", database=self._want.database, cause=str(broken))
                except PandastackError as error:
                    if not self._asked:
                        raise _not_now(self._want, error) from error
                    log.info("postgres.broken", database=self._want.database, cause=repr(error))

    async def _connect(self, session: Session, place: Place) -> None:
        """Connect with the server; while nothing listens, or it starts up, again."""
        pause = _FIRST_PAUSE
        while True:
            with suppress(NotFoundError, GuestError, anyio.EndOfStream):
                async with self._reach.stream(
                    self._route.sandbox, port=self._route.port, waker=_WAKER
                ) as session.stream:
                    await session.stream.send(startup_packet(self._want.parameters))
                    login = Login(self._want.user, session.key_data)
                    if (said := await _first_answer(session.stream, login)) is not None:
                        self._asked = True
                        self._scope.deadline = anyio.current_time() + LOGIN_SECONDS
                        await self._pass(session, session.stream, place, login, said)
            if self._asked:  # it is over; nothing that is said at the end begins it again
                return
            await anyio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _pass(self, session: Session, stream: SleepingStream, place: Place, login: Login, said: bytes) -> None:
        def ready() -> None:
            place.authenticated()
            session.ready = True
            self._scope.deadline = math.inf
            self._socket.on_gone = None

        failed: Exception | None = None
        async with anyio.create_task_group() as tasks:

            async def from_client() -> None:
                with suppress(PandastackError, anyio.ClosedResourceError):
                    await pass_client(self._socket, stream, session, self._begun, self._used)
                tasks.cancel_scope.cancel()

            tasks.start_soon(from_client)
            try:
                await pass_server(self._socket, stream, session, login, said, ready)
            except (Refusal, Malformed, PandastackError) as error:
                failed = error
            tasks.cancel_scope.cancel()
        if isinstance(failed, NotFoundError | GuestError):  # the session is gone, and is not begun again
            log.info("postgres.broken", database=self._want.database, cause=repr(failed))
        elif failed is not None:
            raise failed

    def _used(self) -> None:
        self._reach.use(self._route.sandbox)


async def _first_answer(stream: SleepingStream, login: Login) -> bytes | None:
    """What the client gets first; None: the server starts up. Raises ``EndOfStream``."""
    said = b""
    while not (said or login.starting):
        said = login.feed(await stream.receive())
    return said or None
