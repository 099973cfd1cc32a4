"""Making databases: their machines first, then their passwords."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from pandastack.errors import BadRequestError, ConflictError, PandastackError
from pandastack.products.databases.archive.archives import Archives
from pandastack.products.databases.credentials import verifier_of
from pandastack.products.databases.faults import known, no_template
from pandastack.products.databases.records import Records
from pandastack.products.databases.server import Server, server_of
from pandastack.products.databases.spec import PRODUCT, SIZES
from pandastack.services import ControlPlane
from pandastack.services.records.spec import NewSandbox
from pandastack.store.databases import DatabaseRecord, DatabaseState

_UNDO_SECONDS = 30.0


@dataclass(eq=False)
class Making:
    """A database that is being made: its machine first. ``left`` is set when the task has ended. ``is_resumed``: the
    record was there before, and nobody waits for an answer."""

    is_resumed: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    machine: anyio.Event = field(default_factory=anyio.Event)
    left: anyio.Event = field(default_factory=anyio.Event)
    error: PandastackError | None = None


class Makers:
    """Makes databases in the background. ``made`` gets each that has become ready."""

    def __init__(
        self,
        plane: ControlPlane,
        tasks: TaskGroup,
        records: Records,
        server: Server,
        archives: Archives,
        made: Callable[[DatabaseRecord], Awaitable[None]],
    ) -> None:
        self._plane = plane
        self._tasks = tasks
        self._records = records
        self._server = server
        self._archives = archives
        self._made = made
        self._making: dict[str, Making] = {}

    def begin(self, record: DatabaseRecord, *, is_resumed: bool = False) -> Making:
        """Make what is missing of a database."""
        making = self._making[record.id] = Making(is_resumed)
        self._tasks.start_soon(self._make, record, making)
        return making

    def find(self, database_id: str) -> Making | None:
        """The work on a database, while there is any."""
        return self._making.get(database_id)

    async def _make(self, record: DatabaseRecord, making: Making) -> None:
        """Make a database. One that gets no machine leaves nothing, unless its record was there before."""
        try:
            with making.scope:
                try:
                    await self._make_machine(record, making)
                except Exception as error:
                    making.error = known(error, record)
                    await (self._fail(record, making.error) if making.is_resumed else self._undo(record))
                    return
                making.machine.set()
                await self._make_ready(record)
        finally:
            del self._making[record.id]
            if not making.machine.is_set():
                making.error = making.error or ConflictError(f"database {record.id} was deleted as it was made")
                making.machine.set()
            making.left.set()

    async def _make_machine(self, record: DatabaseRecord, making: Making) -> None:
        """A machine, unless an earlier server has made it."""
        if self._plane.registry.find(record.id) is not None:
            if not record.restored:
                return
            await self._plane.sandboxes.delete(server_of(record), record.id)  # how far it came is not known
        if making.is_resumed:
            await self._archives.remove(record.id)  # what another machine wrote: its log cannot go on with this one's
        await self._records.keep_first(record)
        metadata = {PRODUCT: record.id}
        if record.cloned_from is not None and not record.restored:
            await self._plane.forks.copy(server_of(record), record.cloned_from, record.id, metadata)
            return
        wanted = NewSandbox(
            template=SIZES[record.size].template,
            persistent=True,
            metadata=metadata,
            id=record.id,
            product=PRODUCT,
            always_on=record.always_on,
        )
        try:
            await self._plane.sandboxes.create(server_of(record), wanted)
        except BadRequestError as error:
            if error.field != "template":
                raise
            raise no_template(wanted.template) from error
        if record.restored:
            await self._make_room(record)

    async def _make_room(self, record: DatabaseRecord) -> None:
        """A disk for what is restored. A failure frees the machine: nothing has been restored yet."""
        try:
            await self._archives.make_room(record, record.cloned_from or "", record.id)
        except BaseException:
            with anyio.move_on_after(_UNDO_SECONDS, shield=True), suppress(PandastackError):
                await self._plane.sandboxes.delete(server_of(record), record.id)
            raise

    async def _make_ready(self, record: DatabaseRecord) -> None:
        """Set the password. A failure fails the database, and frees its machine."""
        try:
            if record.restored:
                await self._archives.restore(record)
            credentials = await self._records.credentials(record)
            verifier, copied = verifier_of(credentials.password), record.cloned_from is not None
            await self._server.set_password(server_of(record), record.id, verifier, end_sessions=copied)
            record = await self._records.change(record, state=DatabaseState.READY)
        except Exception as error:
            with suppress(PandastackError):
                await self._plane.sandboxes.delete(server_of(record), record.id)
            await self._fail(record, known(error, record))
            return
        await self._made(record)

    async def _fail(self, record: DatabaseRecord, error: PandastackError) -> None:
        await self._records.change(record, state=DatabaseState.FAILED, error=error.public or error.message)

    async def _undo(self, record: DatabaseRecord) -> None:
        with anyio.move_on_after(_UNDO_SECONDS, shield=True):
            await self._records.remove(record)
