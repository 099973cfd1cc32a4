"""Events on their way out of the control plane: stored for each webhook that wants them, before anything is sent.

This is what parts of the control plane and products publish through. ``services/webhooks`` sends what is stored here.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import anyio
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.errors import NotFoundError
from pandastack.model.caller import Caller
from pandastack.model.webhooks import Occurrence, wants
from pandastack.store import Store
from pandastack.store import webhooks as table
from pandastack.store.webhooks import DeliveryRecord, EndpointRecord

MOST_WAITING = 1000
"""Deliveries that may wait for one endpoint. Further events are dropped and counted."""

LONGEST_BODY = 32 * 1024
"""Bytes. What is longer is sent without its data, and says so."""


@dataclass
class _Box:
    """An endpoint, how many deliveries wait for it at most, and what wakes its sender."""

    record: EndpointRecord
    waiting: int = 0
    more: anyio.Event = field(default_factory=anyio.Event)


class Outbox:
    """The endpoints of all workspaces, in memory and in the store, and what waits for them.

    Without endpoints that want an event, publishing it costs a look at a dictionary.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._boxes: dict[str, _Box] = {}

    async def load(self) -> None:
        """Read what the previous run left."""
        async with self._store.read() as connection:
            waiting = await table.pending(connection)
            records = await table.load_endpoints(connection)
        self._boxes = {each.id: _Box(each, waiting.get(each.id, 0)) for each in records}

    async def publish(self, *occurrences: Occurrence) -> None:
        """Store events for those who want them, in a transaction of its own. When this returns, they will be sent."""
        if not any(self._takers(each) for each in occurrences):
            return
        async with self._store.write() as connection:
            woken = await self.put(connection, *occurrences)
        self.announce(woken)

    async def put(self, connection: AsyncConnection, *occurrences: Occurrence) -> Collection[str]:
        """The same in the caller's transaction, so that a change is never without its event. Hand the result to
        :meth:`announce` after the commit."""
        return await self._put(connection, [(box, each, None) for each in occurrences for box in self._takers(each)])

    async def put_callback(
        self, connection: AsyncConnection, endpoint_id: str, url: str, occurrence: Occurrence
    ) -> Collection[str]:
        """The same for one receiver, which an endpoint with an owner sends to."""
        box = self._boxes.get(endpoint_id)
        return () if box is None else await self._put(connection, [(box, occurrence, url)])

    async def _put(
        self, connection: AsyncConnection, wanted: list[tuple[_Box, Occurrence, str | None]]
    ) -> Collection[str]:
        if not wanted:
            return ()
        names = [event_id(each) for _, each, _ in wanted]
        repeated = [name for (_, each, _), name in zip(wanted, names, strict=True) if each.key is not None]
        stored = await table.known(connection, repeated) if repeated else set()
        new, dropped = [], dict[str, int]()
        for (box, each, url), name in zip(wanted, names, strict=True):
            if (box.record.id, name) in stored:
                continue
            if box.waiting >= MOST_WAITING:
                dropped[box.record.id] = dropped.get(box.record.id, 0) + 1
                continue
            box.waiting += 1
            new.append(replace(delivery_of(box.record, each, name), url=url))
        await table.add_deliveries(connection, new)
        for endpoint_id, count in dropped.items():
            record = self._boxes[endpoint_id].record
            await self.change(connection, record, dropped=record.dropped + count)
        return {each.endpoint_id for each in new}

    def announce(self, endpoint_ids: Iterable[str]) -> None:
        """Wake those who send to these endpoints."""
        for each in endpoint_ids:
            if (box := self._boxes.get(each)) is not None:
                box.more.set()
                box.more = anyio.Event()

    def more(self, endpoint_id: str) -> anyio.Event:
        """Is set when something changes for an endpoint. Take it before you look."""
        return self._boxes[endpoint_id].more

    def is_empty(self, endpoint_id: str) -> None:
        """Note that nothing waits for an endpoint: a transaction that was rolled back may have counted too much."""
        if (box := self._boxes.get(endpoint_id)) is not None:
            box.waiting = 0

    def count(self, endpoint_id: str, change: int) -> None:
        """Note that ``change`` more deliveries wait for an endpoint."""
        if (box := self._boxes.get(endpoint_id)) is not None:
            box.waiting = max(0, box.waiting + change)

    def find(self, endpoint_id: str) -> EndpointRecord | None:
        """An endpoint of any workspace, or None."""
        box = self._boxes.get(endpoint_id)
        return None if box is None else box.record

    def get(self, caller: Caller, endpoint_id: str) -> EndpointRecord:
        """An endpoint of the caller's workspace. Raises :class:`NotFoundError`."""
        record = self.find(endpoint_id)
        if record is None or record.workspace != caller.workspace or record.owner:
            raise NotFoundError(f"webhook not found: {endpoint_id[:64]}", hint="GET /v1/webhooks lists them")
        return record

    def all(self) -> list[EndpointRecord]:
        """Every endpoint, oldest first."""
        return [each.record for each in self._boxes.values()]

    async def add(self, record: EndpointRecord) -> None:
        """Add an endpoint."""
        async with self._store.write() as connection:
            await table.add_endpoint(connection, record)
        self._boxes[record.id] = _Box(record)

    async def change(self, connection: AsyncConnection, record: EndpointRecord, **values: Any) -> EndpointRecord:
        """Set fields of an endpoint, in the caller's transaction; returns the record as it is then."""
        columns = {key: list(each) if isinstance(each, tuple) else each for key, each in values.items()}
        await table.change_endpoint(connection, record.id, **columns)
        box = self._boxes.get(record.id)
        current = record if box is None else box.record
        changed = replace(current, **values)
        if box is not None:
            box.record = changed
        return changed

    async def remove(self, record: EndpointRecord) -> None:
        """Remove an endpoint with everything that waits for it."""
        async with self._store.write() as connection:
            await table.remove_endpoint(connection, record.id)
        self.announce([record.id])
        self._boxes.pop(record.id, None)

    def _takers(self, each: Occurrence) -> list[_Box]:
        return [
            box
            for box in self._boxes.values()
            if box.record.workspace == each.workspace
            and box.record.enabled
            and wants(box.record.events, each.type)
            and each.at >= box.record.created_at
        ]


def event_id(occurrence: Occurrence) -> str:
    """The id of an event: what its receivers tell repetitions by."""
    if occurrence.key is None:
        return f"msg_{uuid.uuid4().hex}"
    named = "\0".join((occurrence.workspace, occurrence.type, occurrence.subject, occurrence.key))
    return f"msg_{hashlib.sha256(named.encode()).hexdigest()[:32]}"


def body_of(occurrence: Occurrence) -> bytes:
    """What is sent: type, time and data. Data that is too long, or no text, is left out: it may come from a guest, and
    must not stop the change that it tells of."""
    message = {"type": occurrence.type, "timestamp": _time(occurrence.at), "data": dict(occurrence.data)}
    try:
        body = to_json(message)
    except ValueError:
        body = b""
    if not 0 < len(body) <= LONGEST_BODY:
        body = to_json({**message, "data": {"id": occurrence.subject, "truncated": True}})
    return body


def delivery_of(endpoint: EndpointRecord, occurrence: Occurrence, name: str) -> DeliveryRecord:
    """A new delivery of an event to an endpoint, due at once."""
    at = occurrence.at
    return DeliveryRecord(str(uuid.uuid4()), endpoint.id, name, occurrence.type, body_of(occurrence), at, at)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
