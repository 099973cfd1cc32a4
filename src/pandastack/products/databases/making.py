"""Databases as they are made: who waits for one, and what callers are told when it fails."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio
import structlog

from pandastack.errors import PandastackError, ServerError, UnavailableError
from pandastack.model.caller import Caller
from pandastack.store.databases import DatabaseRecord

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Making:
    """A database that is being made: its machine first. ``left`` is set when the task has ended. ``is_resumed``:
    another server began it, and nobody waits for an answer."""

    is_resumed: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    machine: anyio.Event = field(default_factory=anyio.Event)
    left: anyio.Event = field(default_factory=anyio.Event)
    error: PandastackError | None = None


def server_of(record: DatabaseRecord) -> Caller:
    """The caller that works on the machine of a database."""
    return Caller.server(record.workspace)


def known(error: Exception, record: DatabaseRecord) -> PandastackError:
    """The error for callers. One that nobody expected ends one database, not the server, and is in the log."""
    if isinstance(error, PandastackError):
        log.warning("database.failed_work", database_id=record.id, cause=repr(error))
        return error
    log.error("database.broken", database_id=record.id, exc_info=error)
    return ServerError("the server failed as it worked on the database")


def no_template(name: str) -> UnavailableError:
    """The error for a template that nobody has made."""
    hint = f"the operator makes it: pandastack template build {name}"
    return UnavailableError(f"this server has no template {name}", hint=hint)
