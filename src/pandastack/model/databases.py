"""What the gateway learns about a database: where it is, and how many clients it takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

_ID = re.compile("[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def is_database_id(text: str) -> bool:
    """Whether ``text`` can be the id of a database: a label of a domain name, in lower case."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class DatabaseRoute:
    """The sandbox of a database, the port of the guest's loopback where its server listens, and the most clients that
    the gateway connects at once."""

    sandbox: str
    port: int
    max_connections: int


class DatabaseDirectory(Protocol):
    """What the control plane answers the gateway's door for PostgreSQL."""

    async def route(self, database: str) -> DatabaseRoute:
        """The route of a database with this id, awake or not.

        Raises :class:`NotFoundError` when there is none: the client is then told what a wrong password is told.
        Raises :class:`UnavailableError` while it is not ready, as when it is being made: the client may come again.
        """
        ...

    def announced(self, port: int) -> None:
        """Note the TCP port where the gateway answers clients of PostgreSQL. It is repeated every few seconds."""
        ...
