"""Access to the database: opens and migrates it, and gives connections for short reads and writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any

import anyio
from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from pandastack.errors import ServerError, UnavailableError
from pandastack.store import migrations

_SQLITE_PRAGMAS = (
    "journal_mode=WAL",  # readers and the writer do not wait for each other
    "synchronous=NORMAL",  # no fsync per commit: a power cut may lose the last commits, but never consistency
    "foreign_keys=ON",
    "busy_timeout=5000",  # milliseconds
)
_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}


class Store:
    """An open database. Hold a connection for one short unit of work, never while waiting for something else."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # SQLite has one writer; waiting here is fair and immediate, while its own busy handler sleeps in growing steps.
        one_writer = engine.dialect.name == "sqlite"
        self._write_lock: AbstractAsyncContextManager[Any] = anyio.Lock() if one_writer else nullcontext()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for queries.

        Shielded from cancellation: a connection whose query was cancelled is thrown away, and SQLite's driver can
        then wait for ever for the thread of a connection that was closed twice.
        """
        with anyio.CancelScope(shield=True), _mapped_errors():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end of the block, rolled back by an exception.

        Shielded from cancellation, so that a write that has begun is either committed or rolled back.
        """
        with anyio.CancelScope(shield=True), _mapped_errors():
            async with self._write_lock, self._engine.begin() as connection:
                yield connection

    async def check(self) -> None:
        """Raise :class:`UnavailableError` unless the database answers."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[Store]:
    """Open the database at ``url`` (``sqlite:///file`` or ``postgresql://…``) and migrate it if its schema is old."""
    # Every block below ends its own transaction: the pool need not roll back once more.
    engine = create_async_engine(_async_url(url), pool_reset_on_return=None)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _set_pragmas)
    try:
        with _mapped_errors():
            await migrate(engine)
        yield Store(engine)
    finally:
        with anyio.CancelScope(shield=True):
            await engine.dispose()


async def migrate(engine: AsyncEngine) -> None:
    """Migrate the schema to the newest revision. Costs one query when it is up to date."""
    async with engine.connect() as connection:
        if await connection.run_sync(_revision) == migrations.HEAD:
            return
    async with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            # Python's driver opens no transaction for DDL by itself: a crash would leave half a schema.
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        await connection.run_sync(migrations.upgrade)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _async_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ServerError(
            "the database URL is invalid",
            hint="for example sqlite:////var/lib/pandastack/control.db",
        ) from error
    return parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in _SQLITE_PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@contextmanager
def _mapped_errors() -> Iterator[None]:
    """Turn SQLAlchemy's errors into our own, without the statement's values."""
    try:
        yield
    except OperationalError as error:
        raise UnavailableError("the database does not answer") from error
    except SQLAlchemyError as error:
        raise ServerError("the database refused the operation") from error
