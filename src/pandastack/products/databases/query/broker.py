"""The query broker: statements over HTTP, by a token of the database (docs/design/0058)."""

from __future__ import annotations

import hmac
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass

import anyio
import anyio.to_thread

from pandastack.errors import AuthError, ConflictError, PandastackError, UnavailableError
from pandastack.model.caller import Caller
from pandastack.products.databases.query import messages
from pandastack.products.databases.query.session import STARTING, Outcome, SqlRefused, TenantSession
from pandastack.products.databases.query.spec import QUERY_MS, Statement, Work, checked_name, quoted
from pandastack.products.databases.query.values import answer
from pandastack.products.databases.records import Records
from pandastack.products.databases.server import SOCKET
from pandastack.products.databases.spec import DATABASE, ROLE
from pandastack.products.databases.wire import Gone
from pandastack.services import ControlPlane
from pandastack.services.output_budget import Lease
from pandastack.services.sandboxes.interior import NothingListens
from pandastack.store.databases import DatabaseRecord, DatabaseState

SESSIONS = 8
"""Requests of one database at once; more of them wait."""
_HOME = "postgres"
"""Where databases are listed, created and deleted from: only the superuser can delete this one."""
_WAIT_SECONDS = 30.0
_START_SECONDS = 60.0
_PAUSE = 0.05
_GRACE_SECONDS = 5.0
"""How much later than the server the host ends statements: SQL can turn the server's own limit off."""
_SMALL = 32 * 1024
"""Bytes of rows that are written as JSON at once; more of them in a thread."""
_LIST = (
    "SELECT d.datname, pg_catalog.pg_get_userbyid(d.datdba),"
    " CASE WHEN pg_catalog.has_database_privilege(d.oid, 'CONNECT') THEN pg_catalog.pg_database_size(d.oid) END"
    " FROM pg_catalog.pg_database d"
    " WHERE NOT d.datistemplate AND d.datname <> 'postgres' ORDER BY 1"
)
_INFO = "SELECT pg_catalog.current_setting('server_version'), (SELECT count(*) FROM pg_catalog.pg_database)"


@dataclass(frozen=True, slots=True)
class Answered:
    """The outcomes of a request. ``body`` has the fields of each as JSON without braces; ``lease`` holds their bytes
    until it is closed."""

    outcomes: tuple[Outcome, ...]
    bodies: tuple[bytes, ...]
    duration_ms: float
    lease: Lease


@dataclass(frozen=True, slots=True)
class OneDatabase:
    """A database of a server. ``size_bytes`` is None for one that the role may not open."""

    name: str
    owner: str
    size_bytes: int | None


class Broker:
    """Carries out statements as the tenant's own role. Each request has a session, which ends with it."""

    def __init__(self, plane: ControlPlane, records: Records) -> None:
        self._plane = plane
        self._records = records
        self._turns: defaultdict[str, anyio.Semaphore] = defaultdict(lambda: anyio.Semaphore(SESSIONS))

    async def identify(self, database_id: str, token: str) -> DatabaseRecord:
        """The database whose broker token this is. Raises :class:`AuthError`, also when there is no such database."""
        record = self._records.get(database_id)
        if record is None or record.state is not DatabaseState.READY:
            raise _not_its_token()
        if not hmac.compare_digest((await self._records.credentials(record)).broker_token.encode(), token.encode()):
            raise _not_its_token()
        return record

    async def run(self, record: DatabaseRecord, work: Work) -> Answered:
        """Carry out the statements, and write the rows as JSON.

        Raises :class:`SqlRefused` with the code of the error, ``NotFoundError`` for an unknown database of the server,
        ``BadRequestError``, ``QuotaError``, :class:`UnavailableError` and ``GuestError``.
        """
        lease = self._plane.output_budget.lease(record.id)
        try:
            async with self._session(record, work, lease) as session:
                began = time.perf_counter()
                outcomes = await _limited(session, work)
                spent = round((time.perf_counter() - began) * 1000, 3)
                names = await _named(session, outcomes)
            bodies = await _written(outcomes, names)
            return Answered(tuple(outcomes), bodies, spent, lease)
        except BaseException:
            lease.close()
            raise

    async def version(self, record: DatabaseRecord) -> str:
        """The version of the server."""
        ((version, _),) = await self._values(record, _INFO, 2)
        return (version or "")[:64]

    async def databases(self, record: DatabaseRecord) -> list[OneDatabase]:
        """The databases of the server, by name, but for those of PostgreSQL itself."""
        rows = await self._values(record, _LIST, 3)
        return [
            OneDatabase(name or "", owner or "", int(size) if size and size.isdigit() else None)
            for name, owner, size in rows
        ]

    async def create(self, record: DatabaseRecord, name: str | None) -> str:
        """Create a database. Raises :class:`ConflictError` for one that exists."""
        name = checked_name(name, "name")
        try:
            await self._do(record, f"CREATE DATABASE {quoted(name)}")
        except SqlRefused as error:
            if error.detail.get("sqlstate") == "42P04":
                raise ConflictError(f"name: {error.message}", field="name") from error
            raise
        return name

    async def drop(self, record: DatabaseRecord, name: str) -> None:
        """Delete a database. Raises :class:`NotFoundError`, and :class:`ConflictError` for one that is in use."""
        name = checked_name(name, "name")
        if name == DATABASE:
            raise ConflictError(f"name: {DATABASE} is the database that connection_url names", field="name")
        try:
            await self._do(record, f"DROP DATABASE {quoted(name)}")
        except SqlRefused as error:
            if error.detail.get("sqlstate") in ("55006", "55P04"):
                raise ConflictError(f"name: {error.message}", field="name", hint="end its sessions first") from error
            raise

    async def _do(self, record: DatabaseRecord, sql: str) -> None:
        (await self.run(record, Work(_HOME, (Statement(sql),), QUERY_MS))).lease.close()

    async def _values(self, record: DatabaseRecord, sql: str, width: int) -> list[list[str | None]]:
        answered = await self.run(record, Work(_HOME, (Statement(sql),), QUERY_MS))
        with closing(answered.lease):
            return [messages.values_of(each, width) for each in answered.outcomes[0].rows]

    @asynccontextmanager
    async def _session(self, record: DatabaseRecord, work: Work, lease: Lease) -> AsyncIterator[TenantSession]:
        """A session in the database that ``work`` names, once it is this request's turn and the server answers."""
        turn = self._turns[record.id]
        try:
            with anyio.fail_after(_WAIT_SECONDS):
                await turn.acquire()
        except TimeoutError as error:
            hint = f"{SESSIONS} requests of a database run at once"
            raise UnavailableError("too many requests of this database are running", hint=hint) from error
        try:
            async with self._started(record, work, lease) as session:
                yield session
                await session.end()
        except Gone as error:
            raise UnavailableError("the database server ended the session") from error
        finally:
            turn.release()
            if turn.value == SESSIONS:
                self._turns.pop(record.id, None)  # nobody has it, and nobody waits

    @asynccontextmanager
    async def _started(self, record: DatabaseRecord, work: Work, lease: Lease) -> AsyncIterator[TenantSession]:
        """A server that starts is waited for. Once a session has begun, nothing is tried again."""
        deadline = anyio.current_time() + _START_SECONDS
        while True:
            began = False
            try:
                caller = Caller.server(record.workspace)
                async with self._plane.interior.connect(caller, record.id, SOCKET) as stream:
                    session = TenantSession(stream, lease)
                    with anyio.move_on_after(_START_SECONDS) as starting:
                        await session.start(_settings(work))
                    if starting.cancelled_caught:
                        raise UnavailableError("the database server does not answer")
                    began = True
                    yield session
                    return
            except (NothingListens, Gone, UnavailableError) as error:
                if began or not _may_start(error) or anyio.current_time() >= deadline:
                    raise
            await anyio.sleep(_PAUSE)


def _may_start(error: Exception) -> bool:
    """Whether the server may only be about to start."""
    if isinstance(error, PandastackError) and not isinstance(error, NothingListens):
        return error.detail.get("sqlstate") in STARTING
    return True


def _settings(work: Work) -> dict[str, str]:
    """Of a session. The server itself enforces the limit, and notices when nobody waits any more."""
    return {
        "user": ROLE,
        "database": work.database,
        "application_name": "pandastack-broker",
        "client_encoding": "UTF8",
        "DateStyle": "ISO",
        "IntervalStyle": "postgres",
        "bytea_output": "hex",
        "extra_float_digits": "1",
        "statement_timeout": str(work.timeout_ms),
        "client_connection_check_interval": "1000",
        **({"default_transaction_read_only": "on"} if work.read_only else {}),
    }


async def _limited(session: TenantSession, work: Work) -> list[Outcome]:
    with anyio.move_on_after(work.timeout_ms / 1000 + _GRACE_SECONDS):
        return await _outcomes(session, work)
    raise SqlRefused("canceled: it took too long", hint="raise timeout_ms", detail={"sqlstate": "57014"})


async def _named(session: TenantSession, outcomes: list[Outcome]) -> dict[int, str]:
    with anyio.move_on_after(_GRACE_SECONDS):
        return await session.names(outcomes)
    raise UnavailableError("the database server does not answer")


async def _outcomes(session: TenantSession, work: Work) -> list[Outcome]:
    bounded = work.is_transaction or work.read_only
    if bounded:
        await session.begin(read_only=work.read_only)
    outcomes = list[Outcome]()
    for place, each in enumerate(work.statements):
        try:
            left = work.max_rows - sum(len(outcome.rows) for outcome in outcomes)
            outcomes.append(await session.run(each, left, in_transaction=work.is_transaction))
        except PandastackError as error:
            if work.is_transaction:  # say which: none of them has happened
                error.detail["statement"] = place
            raise
    if bounded and not work.read_only:
        await session.commit()
    return outcomes


async def _written(outcomes: list[Outcome], names: dict[int, str]) -> tuple[bytes, ...]:
    def write() -> tuple[bytes, ...]:
        return tuple(answer(each.columns, each.rows, names) for each in outcomes)

    large = sum(len(row) for each in outcomes for row in each.rows) > _SMALL
    return await anyio.to_thread.run_sync(write) if large else write()


def _not_its_token() -> AuthError:
    hint = "broker_token of GET /v1/databases/{id}/connection, as Authorization: Bearer pds_pg_…"
    return AuthError("invalid broker token", hint=hint)
