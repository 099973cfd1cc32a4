"""All sandbox records, in memory and in the store.

Every request looks its sandbox up, and that must not cost a query: the records live in memory, and every change
goes to the store before it is reported. One control plane owns its store's sandboxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pandastack.errors import ConflictError, NotFoundError
from pandastack.model.caller import Caller
from pandastack.services.records.bus import Bus, SandboxChanged
from pandastack.services.records.events import EventLog, NewEvent
from pandastack.services.records.outbox import Outbox
from pandastack.services.records.refusals import of_product, unusable
from pandastack.services.records.status import check_move, deletion_of, occurrence_of
from pandastack.store import Store, snapshots
from pandastack.store import sandboxes as table
from pandastack.store.sandboxes import SandboxRecord, Status


@dataclass(frozen=True, slots=True)
class Change:
    """New values for fields of a sandbox's record, and the events to log; either may be empty.

    ``move`` is a pair: the status that the decision was based on, and the next one. ``values`` never has a status.
    """

    sandbox_id: str
    values: Mapping[str, Any] = field(default_factory=dict)
    new_events: Sequence[NewEvent] = ()
    move: tuple[Status, Status] | None = None

    def columns(self) -> dict[str, Any]:
        """All new values, including the status."""
        assert "status" not in self.values, "a status is set by a move"
        return dict(self.values) if self.move is None else {**self.values, "status": self.move[1]}


class Registry:
    """The records of all workspaces. Publishes their changes on the bus."""

    def __init__(self, store: Store, events: EventLog, bus: Bus, outbox: Outbox | None = None) -> None:
        self._store = store
        self._outbox = outbox or Outbox(store)
        self._events = events
        self._bus = bus
        self._records: dict[str, SandboxRecord] = {}

    async def load(self) -> None:
        """Read the records that the previous run left."""
        async with self._store.read() as connection:
            self._records = {record.id: record for record in await table.load_all(connection)}

    def find(self, sandbox_id: str) -> SandboxRecord | None:
        """The record, or None."""
        return self._records.get(sandbox_id)

    def get(self, sandbox_id: str) -> SandboxRecord:
        """The record, of any workspace; raises :class:`NotFoundError`."""
        record = self._records.get(sandbox_id)
        if record is None:
            raise NotFoundError(f"sandbox not found: {sandbox_id[:64]}")
        return record

    def get_owned(self, caller: Caller, sandbox_id: str) -> SandboxRecord:
        """The record, if the caller's workspace owns it; otherwise :class:`NotFoundError`, as if it did not exist."""
        record = self.get(sandbox_id)
        if record.workspace != caller.workspace:
            raise NotFoundError(f"sandbox not found: {sandbox_id[:64]}")
        return record

    def get_usable(self, caller: Caller, sandbox_id: str) -> SandboxRecord:
        """The same for a caller that wants to use or change the sandbox: :class:`ConflictError` for a member when it is
        the machine of a product."""
        record = self.get_owned(caller, sandbox_id)
        if record.product is not None and not caller.is_server:
            raise of_product(record)
        return record

    def all(self) -> list[SandboxRecord]:
        """Every record, newest first."""
        return list(reversed(self._records.values()))

    async def add(self, record: SandboxRecord) -> None:
        """Add a new record."""
        await self.add_all([record])

    async def add_all(self, records: Sequence[SandboxRecord]) -> None:
        """Add new records, all or none."""
        async with self._store.write() as connection:
            await table.add_all(connection, records)
        self._records.update((record.id, record) for record in records)
        for record in records:
            self._bus.publish(SandboxChanged(None, record))

    async def note(self, sandbox_id: str, *new_events: NewEvent) -> None:
        """Log events of a sandbox without changing its record."""
        await self.apply(Change(sandbox_id, new_events=new_events))

    async def change(self, sandbox_id: str, event: NewEvent | None = None, **values: Any) -> SandboxRecord:
        """Set fields of an existing record, and log the events."""
        await self.apply(Change(sandbox_id, values, () if event is None else (event,)))
        return self._records[sandbox_id]

    async def move(
        self, record: SandboxRecord, to: Status, event: NewEvent | None = None, **values: Any
    ) -> SandboxRecord:
        """Change a sandbox's status, set fields, and log the events. ``record`` is the state the decision was based on.

        Raises :class:`ConflictError` when the status has changed since, and :class:`ServerError` for a move that
        :data:`~pandastack.services.records.status.MOVES` does not list.
        """
        await self.apply(Change(record.id, values, () if event is None else (event,), (record.status, to)))
        return self._records[record.id]

    async def refusal(self, record: SandboxRecord) -> ConflictError:
        """The error for a request that the sandbox's status does not allow: the reason, and a remedy."""
        if record.status != Status.FAILED:
            return unusable(record)
        async with self._store.read() as connection:
            return unusable(record, await snapshots.last_checkpoint(connection, record.id))

    async def apply(self, *changes: Change) -> None:
        """Change existing records: all or none, in one transaction, with their events in this order.

        The changes are visible in memory at once, so that no request slips in between; they are undone when the store
        refuses them. Before it changes anything, it raises :class:`NotFoundError` when a record is missing, and the
        errors of :meth:`move`.
        """
        before = {each.sandbox_id: self.get(each.sandbox_id) for each in changes}
        for each in changes:
            await self._check_move(before[each.sandbox_id], each.move)
        moved = {each.sandbox_id for each in changes if each.move is not None}
        for each in changes:
            if columns := each.columns():
                self._records[each.sandbox_id] = replace(self._records[each.sandbox_id], **columns)
        after = {sandbox_id: self._records[sandbox_id] for sandbox_id in before}
        try:
            await self._write(changes, before)
        except BaseException:
            for sandbox_id, record in before.items():
                if self._records.get(sandbox_id) is after[sandbox_id]:
                    self._records[sandbox_id] = record
            raise
        for sandbox_id, record in before.items():
            self._events.announce(sandbox_id)
            if after[sandbox_id] is not record:
                self._bus.publish(SandboxChanged(record, after[sandbox_id], sandbox_id in moved))

    async def _check_move(self, current: SandboxRecord, move: tuple[Status, Status] | None) -> None:
        if move is None:
            return
        if current.status != move[0]:
            raise await self.refusal(current)
        check_move(*move)

    async def _write(self, changes: Sequence[Change], records: Mapping[str, SandboxRecord]) -> None:
        values: dict[str, dict[str, Any]] = {}
        for each in changes:
            values.setdefault(each.sandbox_id, {}).update(each.columns())
        events = [
            (records[each.sandbox_id].workspace, each.sandbox_id, event)
            for each in changes
            for event in each.new_events
        ]
        moves = [occurrence_of(self._records[each.sandbox_id], *each.move) for each in changes if each.move]
        async with self._store.write() as connection:
            await table.change_all(connection, values)
            await self._events.append(connection, *events)
            woken = await self._outbox.put(connection, *(each for each in moves if each is not None))
        self._outbox.announce(woken)

    async def remove(self, sandbox_id: str) -> None:
        """Delete the record and its events; a missing one is fine."""
        record = self._records.get(sandbox_id)
        async with self._store.write() as connection:
            await table.remove(connection, sandbox_id)
            woken = await self._outbox.put(connection, *(() if record is None else (deletion_of(record),)))
        self._outbox.announce(woken)
        self._records.pop(sandbox_id, None)
        self._events.announce(sandbox_id)

    async def save_activity(self, times: Mapping[str, float]) -> None:
        """Write idle clocks: id → epoch seconds of the last activity."""
        async with self._store.write() as connection:
            await table.set_active(connection, times)
