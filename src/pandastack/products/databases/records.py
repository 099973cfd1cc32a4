"""The records of databases and their credentials: in memory and in the store, the credentials encrypted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from pandastack.errors import NotFoundError, QuotaError, ServerError
from pandastack.model.caller import Caller
from pandastack.model.webhooks import Occurrence
from pandastack.products.databases.archive.archive import Backups
from pandastack.products.databases.credentials import Credentials, new_password
from pandastack.products.databases.disk import Room
from pandastack.products.databases.spec import DATABASE, ROLE
from pandastack.services import ControlPlane
from pandastack.store import databases as table
from pandastack.store.databases import DatabaseRecord, DatabaseState
from pandastack.store.secrets import DATABASES


@dataclass(frozen=True, slots=True)
class Database:
    """A database as its owner sees it. ``status``: ``provisioning``, ``running``, ``hibernated``, ``waking`` or
    ``failed``, then with ``error``. ``url``, ``password`` and ``broker_token`` are None where nobody asks for them, and
    before they are made, ``backups`` where there is no archive, ``room`` where the disk was not looked at.
    """

    record: DatabaseRecord
    status: str
    host: str
    port: int | None
    disk_gb: int
    error: str | None = None
    password: str | None = field(default=None, repr=False)
    backups: Backups | None = None
    broker_token: str | None = field(default=None, repr=False)
    room: Room | None = None

    @property
    def url(self) -> str | None:
        """The address for clients, with the password."""
        if self.password is None or self.port is None:
            return None
        return f"postgres://{ROLE}:{self.password}@{self.host}:{self.port}/{DATABASE}"


class Records:
    """Those of all workspaces. A look costs no query; every change is in the store before it is seen."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._records: dict[str, DatabaseRecord] = {}

    async def load(self) -> list[DatabaseRecord]:
        """Read and return what earlier servers left."""
        async with self._plane.store.read() as connection:
            self._records = {each.id: each for each in await table.load_all(connection)}
        return list(self._records.values())

    def get(self, database_id: str) -> DatabaseRecord | None:
        """The record, of any workspace and in any state, or None."""
        return self._records.get(database_id)

    def find(self, caller: Caller, database_id: str) -> DatabaseRecord:
        """A record of the caller's workspace. Raises :class:`NotFoundError`."""
        record = self._records.get(database_id)
        if record is None or record.workspace != caller.workspace or record.state is DatabaseState.DELETING:
            hint = "GET /v1/databases lists the databases"
            raise NotFoundError(f"database not found: {database_id[:64]}", hint=hint)
        return record

    def all(self) -> Iterable[DatabaseRecord]:
        """Those of all workspaces."""
        return self._records.values()

    def of(self, caller: Caller) -> list[DatabaseRecord]:
        """Those of the caller's workspace, newest first."""
        mine = [each for each in self._records.values() if each.workspace == caller.workspace]
        return [each for each in reversed(mine) if each.state is not DatabaseState.DELETING]

    async def add(self, record: DatabaseRecord) -> None:
        """Add one. Raises :class:`QuotaError`."""
        most = self._plane.settings.max_databases
        if sum(each.workspace == record.workspace for each in self._records.values()) >= most:
            hint = "delete one, or ask the operator to raise PANDASTACK_MAX_DATABASES"
            raise QuotaError(f"a workspace has at most {most} databases", hint=hint)
        self._records[record.id] = record  # at once: the next one counts it
        try:
            async with self._plane.store.write() as connection:
                await table.add(connection, record)
        except BaseException:
            del self._records[record.id]
            raise

    async def change(self, record: DatabaseRecord, **values: Any) -> DatabaseRecord:
        """Set fields; returns the record as it is then."""
        changed = replace(self._records.get(record.id, record), **values)
        async with self._plane.store.write() as connection:
            await table.change(connection, record.id, **values)
            woken = await self._plane.outbox.put(connection, *_told(changed, values.get("state")))
        self._plane.outbox.announce(woken)
        self._records[record.id] = changed = replace(self._records.get(record.id, record), **values)
        return changed

    async def remove(self, record: DatabaseRecord) -> None:
        """Remove a record and its credentials."""
        await self._plane.secrets.remove_owned(record.workspace, DATABASES, record.id)
        async with self._plane.store.write() as connection:
            await table.remove(connection, record.id)
            woken = await self._plane.outbox.put(connection, *_told(record, record.state, gone=True))
        self._plane.outbox.announce(woken)
        self._records.pop(record.id, None)

    async def credentials(self, record: DatabaseRecord) -> Credentials:
        """The credentials. Raises :class:`ServerError` when they are lost."""
        text = await self._plane.secrets.owned_value(record.workspace, DATABASES, record.id)
        if text is None:
            raise ServerError(f"the password of database {record.id} is not stored")
        return Credentials.from_text(text)

    async def keep_first(self, record: DatabaseRecord) -> None:
        """Store a password for one that has none yet."""
        if await self._plane.secrets.owned_value(record.workspace, DATABASES, record.id) is None:
            await self.keep(record, Credentials(new_password()))

    async def keep(self, record: DatabaseRecord, credentials: Credentials) -> None:
        """Store the credentials in place of the former ones."""
        await self._plane.secrets.put_owned(record.workspace, DATABASES, record.id, credentials.to_text())


def _told(record: DatabaseRecord, state: DatabaseState | None, *, gone: bool = False) -> list[Occurrence]:
    """What webhooks are told of a new state. A create that was undone was never a database."""
    types = {DatabaseState.READY: "database.ready", DatabaseState.FAILED: "database.failed"}
    if gone:
        types = {DatabaseState.DELETING: "database.deleted"}
    if state not in types:
        return []
    data = {"id": record.id, "label": record.label, "size": record.size, "error": record.error}
    return [Occurrence(record.workspace, types[state], record.id, data)]
