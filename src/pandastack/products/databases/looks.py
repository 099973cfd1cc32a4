"""Looks at the servers of databases that run: their numbers once in a while, and what they do before they sleep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import anyio
import structlog

from pandastack.errors import PandastackError
from pandastack.products.databases.archive.archives import Archives
from pandastack.products.databases.faults import known
from pandastack.products.databases.numbers import Numbers
from pandastack.products.databases.records import Records
from pandastack.products.databases.server import Server, server_of
from pandastack.products.databases.spec import PRODUCT
from pandastack.services import ControlPlane
from pandastack.store.databases import DatabaseRecord, DatabaseState
from pandastack.store.sandboxes import SandboxRecord, Status

_LOOK_SECONDS = 10.0
_AT_ONCE = 4
_WORK_SECONDS = 2.0
"""How long a server may take to say what it does: the sleep of others waits meanwhile."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of a database. ``numbers``: those of the last look, None before the first one and after a reset.

    ``archive_lag_bytes``: what its log had at that look and its archive has not yet.
    """

    database_id: str
    is_awake: bool
    numbers: Numbers | None
    archive_lag_bytes: int | None


class Looks:
    """Looks wake nothing and keep nothing awake."""

    def __init__(self, plane: ControlPlane, records: Records, server: Server, archives: Archives) -> None:
        self._plane = plane
        self._records = records
        self._server = server
        self._archives = archives
        self._numbers: dict[str, Numbers] = {}
        plane.lifecycle.at_work[PRODUCT] = self.is_at_work

    async def run(self) -> None:
        """Look at all databases that run, again and again, until cancelled."""
        while every := self._plane.settings.database_metrics_seconds:
            await self.take()
            await anyio.sleep(every)

    async def take(self) -> None:
        """Look once at each database that runs. One that does not answer keeps the numbers that it had."""
        ready = {each.id: each for each in self._records.all() if each.state is DatabaseState.READY}
        self._numbers = {key: numbers for key, numbers in self._numbers.items() if key in ready}
        turns = anyio.Semaphore(_AT_ONCE)

        async def look(record: DatabaseRecord) -> None:
            async with turns:
                try:
                    self._numbers[record.id] = await self._server.numbers(server_of(record), record.id, _LOOK_SECONDS)
                except PandastackError as error:  # it falls asleep, is deleted, or talks nonsense
                    log.debug("database.no_numbers", database_id=record.id, cause=repr(error))
                except Exception as error:
                    known(error, record)

        async with anyio.create_task_group() as tasks:
            for record in ready.values():
                if self._is_awake(record):
                    tasks.start_soon(look, record)

    def all(self) -> Iterator[Look]:
        """What is known of each database that can be used; nothing where no looks are taken."""
        if not self._plane.settings.database_metrics_seconds:
            return
        for record in self._records.all():
            if record.state is DatabaseState.READY:
                numbers, backups = self._numbers.get(record.id), self._archives.backups(record.id)
                lag = None if numbers is None or backups is None else backups.lag(numbers.wal_bytes)
                yield Look(record.id, self._is_awake(record), numbers, lag)

    async def is_at_work(self, machine: SandboxRecord) -> bool:
        """Whether the server of an idle machine does something that is to end first. One that does not say sleeps."""
        record = self._records.get(machine.id)
        if record is None or record.state is not DatabaseState.READY:
            return False
        try:
            work = await self._server.work(server_of(record), record.id, _WORK_SECONDS)
        except Exception as error:
            known(error, record)
            return False
        return bool(work)

    def _is_awake(self, record: DatabaseRecord) -> bool:
        machine = self._plane.registry.find(record.id)
        return machine is not None and machine.status is Status.RUNNING
