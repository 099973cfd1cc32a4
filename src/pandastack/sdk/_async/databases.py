"""PostgreSQL databases, each in a machine of its own."""

from __future__ import annotations

import builtins
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import IO, Any, cast

from pandastack.sdk._async.interfaces import AsyncConnection
from pandastack.sdk._databases import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    clone_database,
    create_database,
    database_logs,
    export_database,
    import_database,
    is_ready,
    now_text,
    one_database,
    query_database,
    statements_of,
)
from pandastack.sdk._runtime import async_append, async_pause, async_read_next
from pandastack.sdk._types import Database, DatabaseBackups
from pandastack.sdk.wire.call import Call
from pandastack.sdk.wire.coding import mapped_transport_errors

_PIECE = 256 * 1024


class AsyncDatabasesAPI:
    """The databases of the workspace: PostgreSQL 16, reached at the ``connection_url`` of each.

    One that is idle sleeps, and wakes when a client connects.
    """

    def __init__(self, client: AsyncConnection) -> None:
        self._client = client

    async def create(
        self,
        *,
        cpu: int | None = None,
        memory_mb: int | None = None,
        label: str | None = None,
        size: str | None = None,
        always_on: bool | None = None,
        timeout: float = 180.0,
        idempotency_key: str | None = None,
    ) -> Database:
        """Make a database, and return when it can be used. ``size`` is its memory: ``"1g"`` (default), ``"4g"`` or
        ``"16g"``. With ``always_on`` it does not sleep. ``cpu`` and ``memory_mb`` mean nothing here.

        Raises BadRequestError, QuotaError, CapacityError, DatabaseFailedError, and TimeoutError after ``timeout``
        seconds: then it may still become ready.
        """
        wanted = {"cpu": cpu, "memory_mb": memory_mb, "label": label, "size": size, "always_on": always_on}
        made = await self._client.transport.object(create_database(idempotency_key, **wanted))
        return await self.wait_until_ready(made["id"], timeout=timeout)

    async def wait_until_ready(self, database_id: str, *, timeout: float = 180.0) -> Database:
        """Return the database once it runs and has its ``connection_url``. Raises DatabaseFailedError, TimeoutError."""
        deadline, wait = time.monotonic() + timeout, FIRST_PAUSE
        while True:
            database = await self.get(database_id)
            if is_ready(database):
                return database
            if time.monotonic() >= deadline:
                status = database["status"]
                raise TimeoutError(f"database {database_id} is not ready after {timeout:g} s, but {status}")
            await async_pause(wait)
            wait = min(wait * 1.5, LONGEST_PAUSE)

    async def list(self) -> builtins.list[Database]:
        """All databases, newest first, without passwords."""
        return [cast(Database, each) for each in await self._client.transport.list(Call("GET", "/databases"))]

    async def get(self, database_id: str) -> Database:
        """One database, with its password. Raises NotFoundError."""
        return await self._made(one_database("GET", database_id))

    async def delete(self, database_id: str) -> None:
        """Delete a database with everything in it. Its copies stay. Raises NotFoundError."""
        await self._client.transport.run(one_database("DELETE", database_id))

    async def connection(self, database_id: str) -> dict[str, str]:
        """Where clients connect to: ``connection_url``, ``broker_url`` and ``broker_token``.

        Raises ServerError with status 503 before it is ready.
        """
        return cast(
            "dict[str, str]", await self._client.transport.object(one_database("GET", database_id, "/connection"))
        )

    async def update(self, database_id: str, *, always_on: bool | None = None, disk_gb: int | None = None) -> Database:
        """Have it run always, or sleep when it is idle. ``disk_gb`` gives it a larger disk as it runs; one that sleeps
        is woken. A disk never shrinks.

        Raises BadRequestError, QuotaError, and CapacityError when the host has no room.
        """
        return await self._made(one_database("PATCH", database_id, always_on=always_on, disk_gb=disk_gb))

    async def wake(self, database_id: str) -> dict[str, Any]:
        """Begin to wake it; :meth:`wait_until_ready` waits. A client that connects wakes it, too."""
        return await self._client.transport.object(one_database("POST", database_id, "/wake"))

    async def clone(
        self,
        database_id: str,
        *,
        label: str | None = None,
        target_time: str | None = None,
        size: str | None = None,
        wait: bool = True,
        timeout: float = 600.0,
        idempotency_key: str | None = None,
    ) -> Database:
        """Copy a database as it runs now, with its memory, and return when the copy can be used; at once without
        ``wait``. It has another password and no sessions, and takes no space until one of both changes.

        One as it was at ``target_time`` (``"2026-01-31T09:30:00Z"``), or of another ``size``, is restored from the
        archive: BadRequestError with the times that there are, ConflictError before the first backup.
        """
        call = clone_database(database_id, idempotency_key, label=label, target_time=target_time, size=size)
        made = await self._made(call)
        return await self.wait_until_ready(made["id"], timeout=timeout) if wait else made

    async def restore(
        self,
        database_id: str,
        *,
        target_time: str | None = None,
        label: str | None = None,
        size: str | None = None,
        timeout: float = 3600.0,
    ) -> Database:
        """Make a new database as this one was at ``target_time``, by default now, and return when it can be used."""
        time = target_time or now_text()
        return await self.clone(database_id, target_time=time, label=label, size=size, timeout=timeout)

    async def backup(self, database_id: str) -> DatabaseBackups:
        """Take a base backup now. Restores to later times begin with it."""
        return cast(
            "DatabaseBackups", await self._client.transport.object(one_database("POST", database_id, "/backups"))
        )

    async def backups(self, database_id: str) -> DatabaseBackups:
        """The times that it can be restored to, its base backups, and the health of its archive. Does not wake it."""
        return cast(
            "DatabaseBackups", await self._client.transport.object(one_database("GET", database_id, "/backups"))
        )

    async def reset_credentials(self, database_id: str) -> Database:
        """Give it another password, and end every session. After an error, doing it again is safe."""
        return await self._made(one_database("POST", database_id, "/reset-credentials"))

    async def reset(self, database_id: str, *, wait: bool = True, timeout: float = 600.0) -> Database:
        """Give a copy the present data of its source in place of its own, and return when it can be used; at once
        without ``wait``. Its id, address and password stay. Raises ConflictError for one that is no copy.
        """
        made = await self._made(one_database("POST", database_id, "/reset"))
        return await self.wait_until_ready(database_id, timeout=timeout) if wait else made

    async def failover(self, database_id: str) -> Database:
        """Move it to another node. Not supported: BadRequestError with status 501."""
        return await self._made(one_database("POST", database_id, "/failover"))

    async def stats(self, database_id: str) -> dict[str, Any]:
        """Numbers of its server: sizes, connections. Does not wake it: ServerError with status 503 while it sleeps."""
        return await self._client.transport.object(one_database("GET", database_id, "/stats"))

    async def logs(self, database_id: str, lines: int | None = None) -> str:
        """The last lines of its server's log: 300, or ``lines`` (10 to 2,000). Does not wake it either."""
        return str((await self._client.transport.object(database_logs(database_id, lines)))["logs"])

    async def query(
        self,
        database_id: str,
        sql: str,
        params: Sequence[Any] = (),
        *,
        database: str = "pandastack",
        read_only: bool = False,
        max_rows: int | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Carry out one statement over HTTP, and return its ``columns`` and ``rows``: at most 10,000, or ``max_rows``.

        ``params`` are the values of ``$1``, ``$2``, … With ``read_only`` the server lets it write nothing. ``timeout``
        is in seconds, by default 30. SQL that is wrong raises BadRequestError; its ``detail`` has the ``sqlstate``.
        """
        wanted = {"sql": sql, "params": list(params), "max_rows": max_rows, "read_only": read_only or None}
        return await self._asked(database_id, "query", timeout, database=database, **wanted)

    async def execute(
        self,
        database_id: str,
        sql: str,
        params: Sequence[Any] = (),
        *,
        database: str = "pandastack",
        timeout: float | None = None,
    ) -> int:
        """Carry out one statement over HTTP, and return how many rows it affected. The same errors."""
        done = await self._asked(database_id, "exec", timeout, database=database, sql=sql, params=list(params))
        return int(done["rows_affected"])

    async def transaction(
        self,
        database_id: str,
        statements: Sequence[str | tuple[str, Sequence[Any]]],
        *,
        database: str = "pandastack",
        read_only: bool = False,
        timeout: float | None = None,
    ) -> builtins.list[dict[str, Any]]:
        """Carry out statements that all happen or none: SQL, or pairs of SQL and its parameters. Returns what each
        gave, as :meth:`query`. An error's ``detail`` says which ``statement`` it was, counted from 0.
        """
        wanted = {"statements": statements_of(statements), "read_only": read_only or None}
        done = await self._asked(database_id, "transaction", timeout, database=database, **wanted)
        return list(done["results"])

    async def export(
        self, database_id: str, into: IO[bytes], *, database: str | None = None, plain: bool = False
    ) -> None:
        """Write everything in a database into a file, as pg_dump does: for pg_restore, or as SQL with ``plain``.

        Raises ConnectionError when it breaks off: what was written then is not all.
        """
        call = export_database(database_id, database, plain)
        async with aclosing(await self._client.transport.run(call)) as response:
            pieces = response.aiter_bytes()
            while True:
                with mapped_transport_errors(self._client.api_url):
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                await async_append(into, piece)

    async def import_(
        self, database_id: str, content: IO[bytes], *, database: str | None = None, clean: bool = False
    ) -> None:
        """Restore what :meth:`export` or ``pg_dump --format=custom`` wrote, in one transaction: all of it or nothing.

        With ``clean`` what it has is deleted from the database before. A dump that does not fit raises BadRequestError.
        """
        await self._client.transport.run(import_database(database_id, database, clean, _pieces(content)))

    async def _asked(self, database_id: str, what: str, timeout: float | None, **wanted: Any) -> dict[str, Any]:
        call = query_database(database_id, what, timeout, self._client.transport.timeout, **wanted)
        return await self._client.transport.object(call)

    async def _made(self, call: Call) -> Database:
        return cast(Database, await self._client.transport.object(call))


async def _pieces(content: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await async_read_next(content, _PIECE):
        yield piece
