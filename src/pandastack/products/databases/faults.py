"""What goes wrong with databases, as errors for callers."""

from __future__ import annotations

import structlog

from pandastack.errors import PandastackError, ServerError, UnavailableError
from pandastack.store.databases import DatabaseRecord

GONE = "its machine is gone"

log = structlog.get_logger(__name__)


def known(error: Exception, record: DatabaseRecord) -> PandastackError:
    """The error for callers. One that nobody expected ends one database, not the server, and is in the log."""
    if isinstance(error, PandastackError):
        log.warning("database.failed_work", database_id=record.id, cause=repr(error))
        return error
    log.error("database.broken", database_id=record.id, exc_info=error)
    return ServerError("the server failed as it worked on the database")


def no_template(name: str) -> UnavailableError:
    """The error for a template that the operator has not made."""
    hint = f"the operator makes it: pandastack template build {name}"
    return UnavailableError(f"this server has no template {name}", hint=hint)
