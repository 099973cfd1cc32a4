"""Endpoints of outgoing webhooks, and their deliveries. Their secrets are among the secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.store.product_schema import webhook_deliveries as deliveries
from pandastack.store.product_schema import webhook_endpoints as endpoints


class DeliveryState(StrEnum):
    """How far a delivery is."""

    PENDING = "pending"
    """It is to be sent at ``due_at``."""
    DELIVERED = "delivered"
    """The endpoint has taken it."""
    FAILED = "failed"
    """It was tried as often as it may be."""


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """Where events of a workspace are sent. Times are in epoch seconds. ``failing_since`` is the first failure since
    the last success, ``disabled_reason`` is set when the server has disabled it, and ``dropped`` counts the events that
    found its queue full. One with an ``owner``, such as a function, sends its callbacks, and is listed nowhere.
    """

    id: str
    workspace: str
    url: str
    events: tuple[str, ...]
    description: str
    enabled: bool
    created_at: float
    disabled_reason: str | None = None
    failing_since: float | None = None
    dropped: int = 0
    owner: str = ""


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """One event on its way to one endpoint. ``status`` and ``error`` are those of the last attempt; ``url`` is where a
    callback goes."""

    id: str
    endpoint_id: str
    event_id: str
    type: str
    body: bytes
    created_at: float
    due_at: float
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    ended_at: float | None = None
    status: int | None = None
    error: str | None = None
    url: str | None = None


async def load_endpoints(connection: AsyncConnection) -> list[EndpointRecord]:
    """The endpoints of all workspaces, oldest first."""
    rows = await connection.execute(select(endpoints).order_by(endpoints.c.created_at, endpoints.c.id))
    return [EndpointRecord(**{**row, "events": tuple(row["events"])}) for row in rows.mappings()]


async def add_endpoint(connection: AsyncConnection, record: EndpointRecord) -> None:
    """Insert ``record``."""
    await connection.execute(insert(endpoints), {**asdict(record), "events": list(record.events)})


async def change_endpoint(connection: AsyncConnection, endpoint_id: str, **values: Any) -> None:
    """Set columns of an endpoint."""
    await connection.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(**values))


async def remove_endpoint(connection: AsyncConnection, endpoint_id: str) -> None:
    """Delete an endpoint and its deliveries; a missing one is fine."""
    await connection.execute(delete(endpoints).where(endpoints.c.id == endpoint_id))


async def pending(connection: AsyncConnection) -> dict[str, int]:
    """How many deliveries wait, by endpoint."""
    waiting = select(deliveries.c.endpoint_id, func.count()).where(deliveries.c.state == DeliveryState.PENDING)
    rows = await connection.execute(waiting.group_by(deliveries.c.endpoint_id))
    return {row[0]: row[1] for row in rows}


async def known(connection: AsyncConnection, event_ids: Sequence[str]) -> set[tuple[str, str]]:
    """Endpoint and event of each delivery of these events."""
    found = select(deliveries.c.endpoint_id, deliveries.c.event_id).where(deliveries.c.event_id.in_(event_ids))
    return {(endpoint, event) for endpoint, event in await connection.execute(found)}


async def add_deliveries(connection: AsyncConnection, records: Sequence[DeliveryRecord]) -> None:
    """Insert ``records``."""
    if records:
        await connection.execute(insert(deliveries), [asdict(each) for each in records])


async def next_delivery(connection: AsyncConnection, endpoint_id: str) -> DeliveryRecord | None:
    """The delivery of an endpoint that is due first, or None."""
    waiting = (deliveries.c.endpoint_id == endpoint_id) & (deliveries.c.state == DeliveryState.PENDING)
    first = select(deliveries).where(waiting).order_by(deliveries.c.due_at, deliveries.c.created_at).limit(1)
    row = (await connection.execute(first)).mappings().first()
    return None if row is None else _delivery(row)


async def find_delivery(connection: AsyncConnection, endpoint_id: str, delivery_id: str) -> DeliveryRecord | None:
    """One delivery of an endpoint, or None."""
    this = (deliveries.c.endpoint_id == endpoint_id) & (deliveries.c.id == delivery_id)
    row = (await connection.execute(select(deliveries).where(this))).mappings().first()
    return None if row is None else _delivery(row)


async def list_deliveries(
    connection: AsyncConnection, endpoint_id: str, limit: int, state: DeliveryState | None = None
) -> list[DeliveryRecord]:
    """The newest deliveries of an endpoint, newest first."""
    wanted = select(deliveries).where(deliveries.c.endpoint_id == endpoint_id)
    if state is not None:
        wanted = wanted.where(deliveries.c.state == state)
    rows = await connection.execute(
        wanted.order_by(deliveries.c.created_at.desc(), deliveries.c.id.desc()).limit(limit)
    )
    return [_delivery(row) for row in rows.mappings()]


async def change_delivery(connection: AsyncConnection, delivery_id: str, **values: Any) -> None:
    """Set columns of a delivery."""
    await connection.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(**values))


async def prune_deliveries(connection: AsyncConnection, endpoint_id: str, keep: int) -> None:
    """Delete the ended deliveries of an endpoint but the ``keep`` that ended last."""
    ended = (deliveries.c.endpoint_id == endpoint_id) & (deliveries.c.state != DeliveryState.PENDING)
    oldest = select(deliveries.c.ended_at).where(ended).order_by(deliveries.c.ended_at.desc()).offset(keep).limit(1)
    if (before := (await connection.execute(oldest)).scalar()) is not None:
        await connection.execute(delete(deliveries).where(ended & (deliveries.c.ended_at <= before)))


def _delivery(row: Mapping[Any, Any]) -> DeliveryRecord:
    return DeliveryRecord(**{**row, "state": DeliveryState(row["state"])})
