"""The databases of workspaces: their records, their machines, their passwords (docs/design/0055)."""

from __future__ import annotations

import builtins
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import NoReturn

import anyio
from anyio.abc import TaskGroup

from pandastack.errors import (
    ConflictError,
    NotFoundError,
    PandastackError,
    UnavailableError,
    UnsupportedError,
)
from pandastack.model.caller import Caller
from pandastack.model.databases import DatabaseRoute
from pandastack.products.databases.archive.archives import Archives, open_archives
from pandastack.products.databases.credentials import Credentials, new_password, verifier_of
from pandastack.products.databases.disk import Disks, disk_gb, grow_disk
from pandastack.products.databases.dumps import Dumps
from pandastack.products.databases.faults import GONE, known
from pandastack.products.databases.looks import Looks
from pandastack.products.databases.making import Makers
from pandastack.products.databases.numbers import Statistics
from pandastack.products.databases.query.broker import Broker
from pandastack.products.databases.records import Database, Records
from pandastack.products.databases.seen import awake, seen
from pandastack.products.databases.server import MOST_LINES, Server, server_of
from pandastack.products.databases.spec import PORT, SIZES, NewDatabase, Original, checked_disk
from pandastack.services import ControlPlane
from pandastack.services.records.spec import LifecyclePatch
from pandastack.store.databases import DatabaseRecord, DatabaseState
from pandastack.store.sandboxes import Status

_DOOR_SECONDS = 5.0
"""How long a create waits for the gateway: both may just have been started."""


class Databases:
    """Every look-up names a workspace; databases of others are not found.

    A record is written before its machine and removed after it, with a state that says which of both is in progress.
    """

    def __init__(self, plane: ControlPlane, tasks: TaskGroup, archives: Archives) -> None:
        self._plane = plane
        self._tasks = tasks
        self.archives = archives
        self._server = Server(plane.interior)
        self._records = Records(plane)
        self.broker = Broker(plane, self._records)
        self.dumps = Dumps(plane.interior)
        self.looks = Looks(plane, self._records, self._server, archives)
        self._disks = Disks(plane)
        self._makers = Makers(plane, tasks, self._records, self._server, archives, self._made)
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._door: int | None = None
        self._announced = anyio.Event()

    async def recover(self) -> None:
        """Find the databases of earlier servers, and finish in the background what was interrupted."""
        for record in await self._records.load():
            match record.state:
                case DatabaseState.DELETING:
                    self._tasks.start_soon(self._end_later, record)
                case DatabaseState.PROVISIONING:
                    self._makers.begin(record, is_resumed=True)
                case DatabaseState.READY:
                    self.archives.begin(record)
                    self._tasks.start_soon(self._in_background, record, self._resume)
                    self._tasks.start_soon(self._in_background, record, self.dumps.end_leftovers)

    async def create(self, caller: Caller, wanted: NewDatabase) -> Database:
        """Make a database, and return once it has a machine; the rest is done in the background.

        Raises :class:`QuotaError`, :class:`CapacityError` and :class:`StorageFullError`, which promise that nothing was
        made, and for a copy :class:`NotFoundError` and :class:`ConflictError`.
        """
        if wanted.restored:
            source = await self.original(caller, wanted.cloned_from or "")
            if isinstance(source, DatabaseRecord) and source.state is not DatabaseState.READY:
                self.usable(caller, source.id)
            await self.archives.check(source.id, wanted.target_time)
        elif wanted.cloned_from is not None:
            self.usable(caller, wanted.cloned_from)
        await self._check_door()
        record = DatabaseRecord(
            id=wanted.id or str(uuid.uuid4()),
            workspace=caller.workspace,
            label=wanted.label,
            size=wanted.size,
            state=DatabaseState.PROVISIONING,
            created_at=time.time(),
            always_on=wanted.always_on,
            cloned_from=wanted.cloned_from,
            restored=wanted.restored,
            target_time=wanted.target_time,
        )
        await self._records.add(record)
        making = self._makers.begin(record)
        await making.machine.wait()
        if making.error is not None:
            await making.left.wait()
            raise making.error
        return self._seen(self._records.get(record.id) or record)

    def list(self, caller: Caller) -> builtins.list[Database]:
        """The workspace's databases, newest first, without passwords."""
        return [self._seen(each) for each in self._records.of(caller)]

    def find(self, caller: Caller, database_id: str) -> DatabaseRecord:
        """The record of one. Raises :class:`NotFoundError`."""
        return self._records.find(caller, database_id)

    async def original(self, caller: Caller, database_id: str) -> Original:
        """What a copy is made of: a database, or the archive of one that this server does not know. The same error."""
        with suppress(NotFoundError):
            return self.find(caller, database_id)
        return await self.archives.find(caller, database_id) or self.find(caller, database_id)

    async def get(self, caller: Caller, database_id: str) -> Database:
        """One database, with its password once it has one, and the room on its disk if it runs.

        Raises :class:`NotFoundError`.
        """
        record = self.find(caller, database_id)
        found = self._seen(record)
        if record.state is not DatabaseState.READY:
            return found
        credentials = await self._records.credentials(record)
        room = await self._disks.look(record) if found.status == Status.RUNNING else None
        return replace(found, password=credentials.password, broker_token=credentials.broker_token, room=room)

    async def connection(self, caller: Caller, database_id: str) -> Database:
        """The same, to connect to. Raises :class:`UnavailableError` while it is being made and when it has failed."""
        found = await self.get(caller, database_id)
        if found.url is None or found.status == Status.FAILED:
            why = f": {found.error}" if found.error else ""
            raise UnavailableError(f"database {database_id} is {found.status}{why}", detail={"status": found.status})
        return found

    async def update(
        self, caller: Caller, database_id: str, always_on: bool | None, size_gb: int | None = None
    ) -> Database:
        """Have it run always, or sleep when it is idle. One that is to run always is woken. ``size_gb``: give it a
        larger disk, as it runs; one that sleeps is woken.

        Raises :class:`BadRequestError` for a disk that is smaller or too large, :class:`ConflictError` for a database
        that is not ready, :class:`QuotaError`, and :class:`StorageFullError`.
        """
        record = self.find(caller, database_id)
        if size_gb is not None:
            async with self._locks[record.id]:
                await self._grow(self.usable(caller, database_id), size_gb)
        if always_on is not None:
            async with self._locks[record.id]:
                self.find(caller, record.id)
                record = await self._records.change(record, always_on=always_on)
                if record.state is DatabaseState.READY:
                    await self._resume(record)
        return await self.get(caller, database_id)

    async def _grow(self, record: DatabaseRecord, size_gb: int) -> None:
        had = disk_gb(self._plane, record)
        await grow_disk(self._plane, server_of(record), record.id, checked_disk(size_gb, had))
        self._disks.forget(record)
        await self.archives.grown(record)

    async def delete(self, caller: Caller, database_id: str) -> None:
        """Delete a database with everything in it. Its copies stay. Raises :class:`NotFoundError`."""
        record = self.find(caller, database_id)
        with anyio.CancelScope(shield=True):
            if (making := self._makers.find(record.id)) is not None:
                making.scope.cancel()
                await making.left.wait()
            async with self._locks[record.id]:
                record = self.find(caller, database_id)  # one whose making was undone is gone
                record = await self._records.change(record, state=DatabaseState.DELETING)
                try:
                    await self._end(record)
                except PandastackError:
                    self._tasks.start_soon(self._end_later, record)
                    raise

    async def wake(self, caller: Caller, database_id: str) -> Database:
        """Begin to wake it, if it sleeps. Raises :class:`ConflictError` for one that has failed."""
        record = self.usable(caller, database_id)
        if self._plane.registry.get(record.id).status is not Status.RUNNING:
            self._tasks.start_soon(self._in_background, record, self._wake)
        return self._seen(record)

    async def reset_credentials(self, caller: Caller, database_id: str) -> Database:
        """Give it another password, and end every session. When this returns, the server has taken it.

        After an error it has the former password or the new one; doing it again is safe.
        """
        record = self.usable(caller, database_id)
        async with self._locks[record.id]:
            record = self.usable(caller, database_id)
            former = await self._records.credentials(record)
            await self._renew(record, replace(former, following=new_password()))
        return await self.get(caller, database_id)

    async def reset(self, caller: Caller, database_id: str) -> Database:
        """Begin to give a copy the present data of its source in place of its own; its id and password stay. Its
        archive begins anew.

        Raises :class:`ConflictError` for one without a source, and when the source cannot be copied: then nothing has
        changed.
        """
        async with self._locks[self.find(caller, database_id).id]:
            record = self._checked_copy(caller, database_id)
            async with self._plane.sandboxes.use(server_of(record), record.cloned_from or ""):
                with anyio.CancelScope(shield=True):  # what is begun here, the next server finishes
                    changes = {
                        "state": DatabaseState.PROVISIONING,
                        "error": None,
                        "restored": False,
                        "target_time": None,
                    }
                    record = await self._records.change(record, **changes)
                    try:
                        with suppress(NotFoundError):
                            await self._plane.sandboxes.delete(server_of(record), record.id)
                    finally:  # one whose machine could not be deleted is as it was
                        self._makers.begin(record, is_resumed=True)
        return self._seen(record)

    def failover(self, caller: Caller, database_id: str) -> NoReturn:
        """Raises :class:`UnsupportedError`: there is no other node."""
        self.find(caller, database_id)
        raise UnsupportedError("this server has one node: there is none to move the database to")

    async def back_up(self, caller: Caller, database_id: str) -> Database:
        """Take a base backup now; what was committed before can be restored then. One that sleeps is woken."""
        await self.archives.back_up(self.usable(caller, database_id))
        return await self.get(caller, database_id)

    async def statistics(self, caller: Caller, database_id: str) -> Statistics:
        """Its numbers. That does not wake it: :class:`UnavailableError` while it does not run."""
        record = self._running(caller, database_id)
        numbers = await self._server.numbers(server_of(record), record.id)
        disk = await self._server.disk(server_of(record), record.id)
        backups = self.archives.backups(record.id)
        return Statistics(numbers, disk, None if backups is None else backups.lag(numbers.wal_bytes))

    def count(self) -> Mapping[str, int]:
        """How many databases of all workspaces have which status."""
        return Counter(self._seen(each).status for each in self._records.all())

    def awake(self, caller: Caller, database_id: str) -> tuple[int, int | None]:
        """Whole seconds without use, and how many more until it sleeps; None: it does not sleep."""
        return awake(self._plane, self.find(caller, database_id))

    async def log(self, caller: Caller, database_id: str, lines: int) -> str:
        """The last lines of its server's log, at most 2,000. The same error."""
        record = self._running(caller, database_id)
        return await self._server.log(server_of(record), record.id, max(1, min(lines, MOST_LINES)))

    async def route(self, database: str) -> DatabaseRoute:
        """Where clients of a database go: see :class:`~pandastack.model.databases.DatabaseDirectory`."""
        record = self._records.get(database)
        if record is None or record.state in (DatabaseState.DELETING, DatabaseState.FAILED):
            raise NotFoundError("there is no such database")
        if record.state is DatabaseState.PROVISIONING:
            raise UnavailableError("the database is being made")
        if self._plane.registry.find(record.id) is None:
            raise UnavailableError(f"the database has failed: {GONE}")
        return DatabaseRoute(record.id, PORT, SIZES[record.size].connections)

    def announced(self, port: int) -> None:
        """Note where the gateway listens for clients."""
        self._door = port
        self._announced.set()

    async def _made(self, record: DatabaseRecord) -> None:
        self.archives.begin(record)
        await self._in_background(record, self._resume)  # it may have been changed meanwhile

    async def _end(self, record: DatabaseRecord) -> None:
        with suppress(NotFoundError):
            await self._plane.sandboxes.delete(server_of(record), record.id)
        await self.archives.remove(record.id)
        await self._forget(record)

    async def _end_later(self, record: DatabaseRecord) -> None:
        """Finish a deletion, however often the engine refuses."""
        while True:
            await self._in_background(record, self._end)
            if self._records.get(record.id) is None:
                return
            await anyio.sleep(self._plane.settings.reaper_interval_seconds)

    async def _forget(self, record: DatabaseRecord) -> None:
        await self._records.remove(record)
        self._locks.pop(record.id, None)

    async def _resume(self, record: DatabaseRecord) -> None:
        """Make record and machine agree after a start, or after a change."""
        machine = self._plane.registry.find(record.id)
        if machine is None:
            return
        if machine.always_on != record.always_on:
            patch = LifecyclePatch(always_on=record.always_on)
            await self._plane.sandboxes.set_lifecycle(server_of(record), record.id, patch)
        credentials = await self._records.credentials(record)
        if credentials.following is not None:
            await self._renew(record, credentials)
        elif record.always_on and machine.status is Status.HIBERNATED:
            await self._wake(record)

    async def _renew(self, record: DatabaseRecord, credentials: Credentials) -> None:
        """Set the password that follows. It is stored first: when that is interrupted, the next server does it."""
        following = credentials.following or credentials.password
        await self._records.keep(record, credentials)
        await self._server.set_password(server_of(record), record.id, verifier_of(following), end_sessions=True)
        await self._records.keep(record, Credentials(following))

    async def _wake(self, record: DatabaseRecord) -> None:
        await self._plane.lifecycle.wake(server_of(record), record.id)

    async def _in_background(self, record: DatabaseRecord, work: Callable[[DatabaseRecord], Awaitable[None]]) -> None:
        try:
            await work(record)
        except Exception as error:
            known(error, record)

    async def _check_door(self) -> None:
        """Raise :class:`UnavailableError` unless the gateway answers clients of databases."""
        with anyio.move_on_after(_DOOR_SECONDS):
            await self._announced.wait()
            return
        hint = "it may still be starting; pandastack up --postgres-port none turns it off"
        raise UnavailableError("no gateway answers clients of databases", hint=hint)

    def usable(self, caller: Caller, database_id: str) -> DatabaseRecord:
        """One that runs or sleeps. Raises :class:`NotFoundError`, and :class:`ConflictError` for any other."""
        record = self.find(caller, database_id)
        found = self._seen(record)
        if record.state is not DatabaseState.READY or found.status == Status.FAILED:
            why = f": {found.error}" if found.error else ""
            raise ConflictError(f"database {record.id} is {found.status}{why}", detail={"status": found.status})
        return record

    def _checked_copy(self, caller: Caller, database_id: str) -> DatabaseRecord:
        """A copy whose source is there. Raises :class:`NotFoundError` and :class:`ConflictError`."""
        record = self.find(caller, database_id)
        if record.state is not DatabaseState.FAILED:
            record = self.usable(caller, database_id)
        if record.cloned_from is None:
            raise ConflictError(f"database {record.id} is no copy", hint="only a copy has a source to be reset to")
        try:
            source = self.usable(caller, record.cloned_from)
        except NotFoundError as error:
            raise ConflictError(f"the source of database {record.id} is gone: {record.cloned_from}") from error
        if source.size != record.size:
            raise ConflictError(f"database {record.id} has another size than its source", hint="a copy can have it")
        return record

    def _running(self, caller: Caller, database_id: str) -> DatabaseRecord:
        record = self.find(caller, database_id)
        if (status := self._seen(record).status) != Status.RUNNING:
            hint = f"POST /v1/databases/{record.id}/wake wakes it" if status == Status.HIBERNATED else None
            raise UnavailableError(f"database {record.id} is {status}", hint=hint, detail={"status": status})
        return record

    def _seen(self, record: DatabaseRecord) -> Database:
        return seen(self._plane, record, self._door, self.archives.backups(record.id))


@asynccontextmanager
async def open_databases(plane: ControlPlane, database_url: str) -> AsyncIterator[Databases]:
    """The databases of a control plane, as long as the block. What is unfinished then, the next server finishes."""
    async with (
        open_archives(plane, database_url) as archives,
        anyio.create_task_group() as looking,
        anyio.create_task_group() as tasks,
    ):
        databases = Databases(plane, tasks, archives)
        await databases.recover()
        looking.start_soon(databases.looks.run)
        yield databases
        tasks.cancel_scope.cancel()
        looking.cancel_scope.cancel()
