"""Whole databases as files: PostgreSQL's own programs in the guest, as the tenant's role (docs/design/0058)."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum

from pandastack.errors import BadRequestError, ConflictError, PandastackError, StorageFullError, UnavailableError
from pandastack.model.caller import Caller
from pandastack.products.databases.query.spec import checked_name
from pandastack.products.databases.spec import DATABASE, ROLE
from pandastack.services.sandboxes.interior import Interior, ProgramFailed
from pandastack.store.databases import DatabaseRecord

MOST_AT_ONCE = 2
"""Exports and imports of one database."""
_LONGEST_SECONDS = 6 * 3600.0
_HELD_BACK = 64 * 1024
"""Bytes of an export that wait for the next: what fails at the beginning is an ordinary error."""
_MAGIC = b"PGDMP"
_SOCKETS = "/run/postgresql"
# Neither root nor the server's user, whose files they would be: the group alone may open the socket.
_AS_NOBODY = "setpriv --reuid=65534 --regid=5432 --clear-groups --no-new-privs"
_ENVIRONMENT = "env -i PATH=/usr/local/bin:/usr/bin:/bin LC_ALL=C.UTF-8"
_RESTORE = f"exec {_AS_NOBODY} {_ENVIRONMENT} pg_restore "


class Format(StrEnum):
    """What an export is."""

    CUSTOM = "custom"
    """Compressed, for pg_restore, and for an import here."""
    PLAIN = "plain"
    """SQL, for psql and for people."""


class Dumps:
    """Exports and imports, streamed: nothing of them waits on the host."""

    def __init__(self, interior: Interior) -> None:
        self._interior = interior
        self._running: Counter[str] = Counter()

    @asynccontextmanager
    async def export(
        self, record: DatabaseRecord, database: str | None, form: Format
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The content of a database as it is now, in one transaction. The iterator raises when it breaks off.

        Raises :class:`BadRequestError` with what pg_dump says, and :class:`ConflictError` for too many at once.
        """
        command = plan_export(checked_name(database or DATABASE), form)
        with self._one_of_few(record):
            async with self._interior.stream(_caller(record), record.id, command, _LONGEST_SECONDS) as output:
                chunks = _explained(output)
                first = await _beginning(chunks, _HELD_BACK)
                yield _chained(first, chunks)

    async def load(
        self, record: DatabaseRecord, database: str | None, content: AsyncIterator[bytes], *, clean: bool
    ) -> None:
        """Restore an export of the custom format, in one transaction: all of it or nothing. ``clean``: what it has is
        deleted before. The same errors.
        """
        command = plan_import(checked_name(database or DATABASE), clean=clean)
        first = await _beginning(content, len(_MAGIC))
        if not first.startswith(_MAGIC):
            hint = "make it with pandastack db export, or with pg_dump --format=custom"
            raise BadRequestError("the body is no dump of PostgreSQL's custom format", hint=hint)
        with self._one_of_few(record):
            try:
                whole = _chained(first, content)
                await self._interior.feed(_caller(record), record.id, command, whole, _LONGEST_SECONDS)
            except ProgramFailed as error:
                raise _explanation(error) from error

    async def end_leftovers(self, record: DatabaseRecord) -> None:
        """End the imports that a killed server has left waiting for the rest. What they did is undone."""
        await self._interior.end_programs(_caller(record), record.id, _RESTORE)

    @contextmanager
    def _one_of_few(self, record: DatabaseRecord) -> Iterator[None]:
        if self._running[record.id] >= MOST_AT_ONCE:
            hint = "wait until one of them has ended"
            raise ConflictError(f"{MOST_AT_ONCE} exports or imports of database {record.id} are running", hint=hint)
        self._running[record.id] += 1
        try:
            yield
        finally:
            self._running[record.id] -= 1
            self._running = +self._running


def plan_export(database: str, form: Format) -> str:
    """The command that prints a dump."""
    how = "--format=custom --compress=1" if form is Format.CUSTOM else "--format=plain --no-owner --no-privileges"
    return f"exec {_AS_NOBODY} {_ENVIRONMENT} pg_dump {how} {_connection(database)}"


def plan_import(database: str, *, clean: bool) -> str:
    """The command that reads one. It knows no commands but SQL, and sends that as the tenant's role."""
    cleaning = "--clean --if-exists " if clean else ""
    how = f"--format=custom --single-transaction --exit-on-error --no-owner --no-privileges {cleaning}"
    return f"{_RESTORE}{how}{_connection(database)}"


def _connection(database: str) -> str:
    """Options for both. The name is in quotation marks twice: for libpq, and for the shell."""
    name = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"--no-password --host={_SOCKETS} --username={ROLE} --dbname={shlex.quote(f'''dbname='{name}' ''')}"


def _caller(record: DatabaseRecord) -> Caller:
    return Caller.server(record.workspace)


async def _explained(output: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for chunk in output:
            yield chunk
    except ProgramFailed as error:
        raise _explanation(error) from error


def _explanation(error: ProgramFailed) -> PandastackError:
    """What pg_dump or pg_restore complains of: its first error, and the server's words for it."""
    if error.complaints.startswith("setpriv:") or not error.complaints:
        return UnavailableError(f"{error.message}: {error.complaints[:200]}", detail=error.detail)
    lines = [each.strip() for each in error.complaints.splitlines()]
    first = next((each for each in lines if "error:" in each), lines[-1])[:1000]
    if "No space left" in error.complaints or "could not extend file" in error.complaints:
        return StorageFullError(first)
    return BadRequestError(first, detail={"messages": [each[:500] for each in lines[-20:]]})


async def _beginning(chunks: AsyncIterator[bytes], least: int) -> bytes:
    """The first bytes; all of them, if they are fewer."""
    first = b""
    async for chunk in chunks:
        first += chunk
        if len(first) >= least:
            break
    return first


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
