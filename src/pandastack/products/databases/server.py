"""The database server in a guest, as its operator: passwords, sessions, numbers, its log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import structlog

from pandastack.errors import GuestError, ServerError, UnavailableError
from pandastack.model.caller import Caller
from pandastack.products.databases.disk import LOOK, Disk, disk_of
from pandastack.products.databases.numbers import (
    NUMBERS_QUERY,
    WORK_QUERY,
    Numbers,
    Work,
    read_numbers,
    read_work,
)
from pandastack.products.databases.spec import ROLE
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
    "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()"
)
"""All are told at once: one that takes its time to end holds up no other."""
_REMAINING = "SELECT pid FROM pg_stat_activity WHERE pid IN ({pids})"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25

log = structlog.get_logger(__name__)


class Server:
    """The servers of all databases, by the id of the sandbox."""

    def __init__(self, interior: Interior) -> None:
        self._interior = interior

    async def set_password(self, caller: Caller, sandbox_id: str, verifier: str, *, end_sessions: bool) -> None:
        """Have the role's password checked by ``verifier`` from now on; ``end_sessions``: end all that began before.

        Raises :class:`ServerError` when the server does not have it afterwards, :class:`UnavailableError` when it does
        not answer or a session does not end, and :class:`GuestError`.
        """
        assert "'" not in verifier and "\\" not in verifier
        given = f"ALTER ROLE {ROLE} LOGIN PASSWORD '{verifier}'"
        taken = f"SELECT rolpassword FROM pg_authid WHERE rolname = '{ROLE}'"

        async def work(session: Session) -> list[Row]:
            await session.query(given)  # in force from here on: what is ended does not come back by the former one
            if end_sessions:
                await end_all(session)
            return await session.query(taken)

        if await self._ask(caller, sandbox_id, work) != [(verifier,)]:
            raise ServerError("the database server has not taken the password")

    async def numbers(self, caller: Caller, sandbox_id: str, limit: float = _QUERY_SECONDS) -> Numbers:
        """Its numbers within ``limit`` seconds, without waking it. Raises :class:`UnavailableError` while it does not
        run."""
        return read_numbers(await self._look(caller, sandbox_id, NUMBERS_QUERY, limit))

    async def work(self, caller: Caller, sandbox_id: str, limit: float) -> tuple[Work, ...]:
        """What it does of its own accord. The same error."""
        return read_work(await self._look(caller, sandbox_id, WORK_QUERY, limit))

    async def disk(self, caller: Caller, sandbox_id: str) -> Disk:
        """Its file system, without waking it. The same error."""
        printed = await self._interior.output(caller, sandbox_id, LOOK, _QUERY_SECONDS, look=True)
        return disk_of(printed.decode(errors="replace"))

    async def log(self, caller: Caller, sandbox_id: str, lines: int) -> str:
        """The last ``lines`` lines of its log, without waking it. The same error."""
        log = await self._interior.log(caller, sandbox_id, _PROCESS, _MOST_LOG)
        kept = log.decode(errors="replace").splitlines()[-lines:]
        return "".join(f"{line}\n" for line in kept)

    async def _look(self, caller: Caller, sandbox_id: str, query: str, limit: float) -> list[Row]:
        """The rows of a query, without waking the server and without waiting for it."""
        try:
            with anyio.fail_after(limit):
                async with self._session(caller, sandbox_id, look=True) as session:
                    return await session.query(query)
        except (TimeoutError, NothingListens, Gone) as error:
            raise _no_answer() from error
        except SqlError as error:
            raise (_no_answer() if error.code in _STARTING else _refused(sandbox_id, error)) from error

    async def _ask(self, caller: Caller, sandbox_id: str, work: Callable[[Session], Awaitable[list[Row]]]) -> list[Row]:
        """What ``work`` finds in a session, once the server answers."""
        deadline, trials = anyio.current_time() + _START_SECONDS, _TRIALS
        while True:
            try:
                with anyio.fail_after(_QUERY_SECONDS):
                    async with self._session(caller, sandbox_id, look=False) as session:
                        return await work(session)
            except SqlError as error:
                if error.code not in _STARTING:
                    raise _refused(sandbox_id, error) from error
                missing: Exception = error
            except (TimeoutError, NothingListens, Gone) as error:  # a busy host may take longer than one trial has
                missing = error
            except GuestError as error:  # nonsense, or a connection that was reset as the server ended
                trials -= 1
                if not trials:
                    raise
                missing = error
            if anyio.current_time() >= deadline:
                raise _no_answer() from missing
            await anyio.sleep(_PAUSE)

    @asynccontextmanager
    async def _session(self, caller: Caller, sandbox_id: str, *, look: bool) -> AsyncIterator[Session]:
        async with self._interior.connect(caller, sandbox_id, SOCKET, look=look) as stream:
            session = Session(stream)
            await session.start(_SUPERUSER, _ITS_DATABASE)
            yield session


async def end_all(session: Session) -> None:
    """End every other session that there is; the caller limits how long that may take."""
    pids, pause = _pids(await session.query(_END_SESSIONS)), _FIRST_PAUSE
    while pids:
        await anyio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
        pids = _pids(await session.query(_REMAINING.format(pids=", ".join(map(str, pids)))))


def _pids(rows: list[Row]) -> list[int]:
    try:
        return [int((row[0] or "")[:10]) for row in rows]
    except (ValueError, IndexError) as error:
        raise GuestError("the database server's answer is malformed") from error


def _no_answer() -> UnavailableError:
    return UnavailableError("the database server does not answer")


def _refused(sandbox_id: str, error: SqlError) -> GuestError:
    log.warning("database.refused", sandbox_id=sandbox_id, cause=str(error))
    return GuestError("the database server refuses its operator", detail={"sqlstate": error.code})


def server_of(record: DatabaseRecord) -> Caller:
    """The caller that works on the machine of a database."""
    return Caller.server(record.workspace)
