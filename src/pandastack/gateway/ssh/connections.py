"""The open connections: their number is limited, and those whose key has been deleted are ended."""

from __future__ import annotations

import anyio
import asyncssh
import structlog

from pandastack.errors import PandastackError
from pandastack.gateway.ssh.seams import Authority

_LOOK_SECONDS = 2.0
"""How long a connection outlives its key at most, while the server answers."""
_AT_ONCE = 1000

log = structlog.get_logger(__name__)

_Login = tuple[str, str]
"""A sandbox, and the fingerprint of the key that opened it."""


class Connections:
    """The connections of one door."""

    def __init__(self, authority: Authority, most: int) -> None:
        self._authority = authority
        self._most = most
        self._open = 0
        self._logins: dict[asyncssh.SSHServerConnection, _Login] = {}

    def opened(self) -> bool:
        """Count a connection; whether there are not too many."""
        self._open += 1
        return self._open <= self._most

    def logged_in(self, connection: asyncssh.SSHServerConnection, sandbox: str, fingerprint: str) -> None:
        """Note which key opened it."""
        self._logins[connection] = sandbox, fingerprint

    def closed(self, connection: asyncssh.SSHServerConnection) -> None:
        """Forget it."""
        self._open -= 1
        self._logins.pop(connection, None)

    async def end_revoked(self) -> None:
        """End connections whose key opens their sandbox no longer, until cancelled."""
        while True:
            await anyio.sleep(_LOOK_SECONDS)
            logins = sorted(set(self._logins.values()))
            for at in range(0, len(logins), _AT_ONCE):
                try:
                    revoked = await self._authority.revoked(logins[at : at + _AT_ONCE])
                except PandastackError as error:  # the server is away: nobody knows better
                    log.warning("ssh.authority_failed", cause=repr(error))
                    break
                for connection in [each for each, login in self._logins.items() if login in revoked]:
                    log.info("ssh.revoked", sandbox_id=self._logins[connection][0])
                    connection.disconnect(asyncssh.DISC_BY_APPLICATION, "the key was deleted")
