"""One connection of an SSH client: who it is, and which channels it may open (RFC 4252 and 4254)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncssh
import structlog
from anyio.abc import TaskGroup

from pandastack.errors import PandastackError
from pandastack.gateway.ssh.connections import Connections
from pandastack.gateway.ssh.login import GuestListener, Handler, Login, Where
from pandastack.gateway.ssh.seams import Authority, Streams
from pandastack.gateway.ssh.session import Session

_Made = TypeVar("_Made")

_ID = re.compile("[0-9a-z][0-9a-z-]{0,35}")
_USER = re.compile("[a-z_][a-z0-9_-]{0,31}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "")
_ANYWHERE = (*_LOOPBACK, "*", "0.0.0.0", "::")
"""Where a client may ask to listen: in the guest it is the loopback in any case."""

log = structlog.get_logger(__name__)


def parsed_name(name: str) -> tuple[str, str | None] | None:
    """The sandbox and the guest's user in a user name of SSH: ``ID`` or ``ID+USER``. None: it is neither."""
    sandbox, plus, user = name.partition("+")
    if not _ID.fullmatch(sandbox) or (plus and not _USER.fullmatch(user)):
        return None
    return sandbox, user or None


class Server(asyncssh.SSHServer):
    """Asks the control plane for each key, and gives what is opened to the connection's login."""

    def __init__(self, streams: Streams, authority: Authority, tasks: TaskGroup, connections: Connections) -> None:
        self._streams = streams
        self._authority = authority
        self._tasks = tasks
        self._connections = connections
        self._fingerprint = ""
        self._login: Login | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Abort a connection beyond the limit."""
        self._connection = conn
        if not self._connections.opened():
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what the client has opened."""
        self._connections.closed(self._connection)
        if self._login is not None:
            self._login.leave()

    def begin_auth(self, username: str) -> bool:
        """Nobody logs in without a key."""
        return True

    def public_key_auth_supported(self) -> bool:
        """Keys are the only way."""
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether this key may log in to this sandbox. An unknown sandbox and a foreign one look the same."""
        name = parsed_name(username)
        if name is None:
            return False
        fingerprint = key.get_fingerprint("sha256")
        try:
            allowed = await self._authority.allows(name[0], fingerprint)
        except PandastackError as error:
            log.warning("ssh.authority_failed", cause=repr(error))
            return False
        if allowed:  # the last one that is asked for before the login is its key
            self._fingerprint = fingerprint
        return allowed

    def auth_completed(self) -> None:
        """The client has proved that it has the key."""
        name = parsed_name(str(self._connection.get_extra_info("username")))
        assert name is not None  # its key was accepted
        sandbox, user = name
        self._login = Login(self._streams, self._tasks, sandbox, user)
        self._login.connection = self._connection
        self._login.start_soon(self._login.hold)
        self._connections.logged_in(self._connection, sandbox, self._fingerprint)
        log.info("ssh.login", sandbox_id=sandbox)

    def session_requested(self) -> Session:
        """A shell, a command, or SFTP."""
        assert self._login is not None
        return Session(self._login)

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Awaitable[asyncssh.SSHTCPSession[bytes]]:
        """``ssh -L`` and ``-D``: to the guest's loopback only, from where a program inside gets further."""
        if dest_host.strip("[]") not in _LOOPBACK or not 1 <= dest_port <= 65535:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "only ports of the sandbox's own loopback are forwarded to"
            )
        return self._connected(Where(port=dest_port), asyncssh.stream.SSHTCPStreamSession)

    def unix_connection_requested(self, dest_path: str) -> Awaitable[asyncssh.SSHUNIXSession[bytes]]:
        """``ssh -L`` to a Unix socket."""
        if not dest_path.startswith("/") or "\0" in dest_path:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "the socket's path must be absolute")
        return self._connected(Where(path=dest_path), asyncssh.stream.SSHUNIXStreamSession)

    async def _connected(self, where: Where, session: Callable[[Handler], _Made]) -> _Made:
        assert self._login is not None
        return session(await self._login.connect(where))

    async def server_requested(self, listen_host: str, listen_port: int) -> GuestListener | bool:
        """``ssh -R`` from a port in the guest."""
        assert self._login is not None
        if listen_host.strip("[]") not in _ANYWHERE or not 0 <= listen_port <= 65535:
            return False
        return await self._login.listen_port(listen_host, listen_port)

    async def unix_server_requested(self, listen_path: str) -> GuestListener | bool:
        """``ssh -R`` from a Unix socket in the guest."""
        assert self._login is not None
        if not listen_path.startswith("/") or "\0" in listen_path:
            return False
        return await self._login.listen_path(listen_path)
