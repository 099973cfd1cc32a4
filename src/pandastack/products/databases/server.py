"""The database server in a guest, as its operator: passwords, sessions, numbers, its log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anyio
import structlog

from pandastack.errors import GuestError, ServerError, UnavailableError
from pandastack.model.caller import Caller
from pandastack.products.databases.spec import DISK, ROLE
from pandastack.products.databases.wire import Gone, Row, Session, SqlError
from pandastack.services.sandboxes.interior import Interior, NothingListens
from pandastack.store.databases import DatabaseRecord

MOST_LINES = 2000
SOCKET = "/run/postgresql/.s.PGSQL.5432"
_PROCESS = "service-postgres"
_MOST_LOG = 512 * 1024
_SUPERUSER = _ITS_DATABASE = "postgres"
_QUERY_SECONDS = 30.0
_START_SECONDS = 90.0
"""How long a server may take until it answers: one that was killed replays its log first."""
_PAUSE = 0.05
_TRIALS = 3
_STARTING = ("57P03", "57P01", "57P02")
"""SQLSTATE: not yet, or it stops because it is started anew."""

_END_SESSIONS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()"
)
_NUMBERS = """SELECT current_setting('server_version'),
    (SELECT sum(pg_database_size(oid))::int8 FROM pg_database WHERE NOT datistemplate),
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
    current_setting('max_connections'),
    extract(epoch FROM now() - pg_postmaster_start_time())::int8,
    (SELECT round(sum(blks_hit) / nullif(sum(blks_hit + blks_read), 0), 4) FROM pg_stat_database),
    count(*) FILTER (WHERE state = 'active'),
    count(*) FILTER (WHERE state LIKE 'idle in transaction%')
    FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers of a server; sizes in bytes. ``cache_hit_ratio`` is from 0 to 1, None before the first read.

    Running queries and open transactions are what keeps a database awake; connections are not.
    """

    postgres_version: str
    db_size_bytes: int
    connections: int
    max_connections: int
    uptime_seconds: int
    cache_hit_ratio: float | None
    disk_size_bytes: int
    disk_used_bytes: int
    disk_avail_bytes: int
    running_queries: int
    open_transactions: int


class Server:
    """The servers of all databases, by the id of the sandbox."""

    def __init__(self, interior: Interior) -> None:
        self._interior = interior

    async def set_password(self, caller: Caller, sandbox_id: str, verifier: str, *, end_sessions: bool) -> None:
        """Have the role's password checked by ``verifier`` from now on; ``end_sessions``: end all that began before.

        Raises :class:`ServerError` when the server does not have it afterwards, and :class:`GuestError`.
        """
        assert "'" not in verifier and "\\" not in verifier
        given = f"ALTER ROLE {ROLE} LOGIN PASSWORD '{verifier}'"
        taken = f"SELECT rolpassword FROM pg_authid WHERE rolname = '{ROLE}'"
        # Statements of one query are one transaction: sessions are ended once the new password is in force.
        queries = (given, f"{_END_SESSIONS}; {taken}") if end_sessions else (f"{given}; {taken}",)
        *_, found = await self._ask(caller, sandbox_id, *queries)
        if found[-1:] != [(verifier,)]:
            raise ServerError("the database server has not taken the password")

    async def statistics(self, caller: Caller, sandbox_id: str) -> Statistics:
        """Its numbers, without waking it. Raises :class:`UnavailableError` while it does not run."""
        (rows,) = await self._ask(caller, sandbox_id, _NUMBERS, look=True)
        disk = await self._interior.output(caller, sandbox_id, f"df -P -k {DISK}", _QUERY_SECONDS, look=True)
        return _statistics(rows, disk.decode(errors="replace"))

    async def log(self, caller: Caller, sandbox_id: str, lines: int) -> str:
        """The last ``lines`` lines of its log, without waking it. The same error."""
        log = await self._interior.log(caller, sandbox_id, _PROCESS, _MOST_LOG)
        kept = log.decode(errors="replace").splitlines()[-lines:]
        return "".join(f"{line}\n" for line in kept)

    async def _ask(self, caller: Caller, sandbox_id: str, *queries: str, look: bool = False) -> list[list[Row]]:
        """The rows of each query, all in one session, once the server answers. A look does not wait for it."""
        deadline = anyio.current_time() + (0.0 if look else _START_SECONDS)
        trials = 1 if look else _TRIALS
        while True:
            try:
                with anyio.fail_after(_QUERY_SECONDS):
                    async with self._interior.connect(caller, sandbox_id, SOCKET, look=look) as stream:
                        session = Session(stream)
                        await session.start(_SUPERUSER, _ITS_DATABASE)
                        return [await session.query(each) for each in queries]
            except SqlError as error:
                if error.code not in _STARTING:
                    log.warning("database.refused", sandbox_id=sandbox_id, cause=str(error))
                    detail = {"sqlstate": error.code}
                    raise GuestError("the database server refuses its operator", detail=detail) from error
                missing: Exception = error
            except (TimeoutError, NothingListens, Gone) as error:  # a busy host may take longer than one trial has
                missing = error
            except GuestError as error:  # nonsense, or a connection that was reset as the server ended
                trials -= 1
                if not trials:
                    raise
                missing = error
            if anyio.current_time() >= deadline:
                raise UnavailableError("the database server does not answer") from missing
            await anyio.sleep(_PAUSE)


def _statistics(rows: Sequence[Row], disk: str) -> Statistics:
    """Raises :class:`GuestError` for what are no such numbers."""
    try:
        ((version, size, connections, most, uptime, ratio, running, waiting),) = rows
        total, used, free = (int(each) * 1024 for each in disk.splitlines()[1].split()[1:4])
        return Statistics(
            postgres_version=(version or "")[:64],
            db_size_bytes=int(size or 0),
            connections=int(connections or 0),
            max_connections=int(most or 0),
            uptime_seconds=int(uptime or 0),
            cache_hit_ratio=None if ratio is None else min(max(float(ratio), 0.0), 1.0),
            disk_size_bytes=total,
            disk_used_bytes=used,
            disk_avail_bytes=free,
            running_queries=int(running or 0),
            open_transactions=int(waiting or 0),
        )
    except (ValueError, IndexError) as error:
        raise GuestError("the database server's numbers are malformed") from error


def server_of(record: DatabaseRecord) -> Caller:
    """The caller that works on the machine of a database."""
    return Caller.server(record.workspace)
