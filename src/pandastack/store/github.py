"""What is remembered of GitHub: deliveries that were handled, and runners that are, or may be, registered there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.store.product_schema import github_deliveries as deliveries
from pandastack.store.product_schema import github_runners as runners


class Phase(StrEnum):
    """How far a runner is. The legal moves are in ``services/github/supply.py``."""

    PLANNED = "planned"
    """GitHub may have been asked for it: its id is not known yet."""
    REGISTERED = "registered"
    """GitHub knows it, and its machine is being started."""
    LISTENING = "listening"
    """It runs, and waits for a job."""
    BUSY = "busy"
    """It has a job."""
    FINISHING = "finishing"
    """Its job has ended; it is about to end itself."""
    ENDING = "ending"
    """It has no machine any more, and is to be removed at GitHub."""


@dataclass(frozen=True, slots=True)
class RunnerRecord:
    """A runner of one pool. ``scope`` is the repository or organization that it is registered with, ``since`` when it
    came to its phase; ``reason`` says why it ended, unless by itself. Times are in epoch seconds."""

    name: str
    workspace: str
    pool: str
    scope: str
    phase: Phase
    since: float
    created_at: float
    runner_id: int | None = None
    job_id: int | None = None
    reason: str | None = None


async def is_handled(connection: AsyncConnection, hook: str, delivery_id: str, digest: str) -> bool:
    """Whether a delivery with this id, or with this body, was handled before."""
    same = (deliveries.c.delivery_id == delivery_id) | (deliveries.c.digest == digest)
    found = select(deliveries.c.hook).where((deliveries.c.hook == hook) & same).limit(1)
    return (await connection.execute(found)).first() is not None


async def add_handled(connection: AsyncConnection, hook: str, delivery_id: str, digest: str, at: float) -> None:
    """Note that a delivery was handled."""
    values = {"hook": hook, "delivery_id": delivery_id, "digest": digest, "received_at": at}
    await connection.execute(insert(deliveries), values)


async def forget_handled(connection: AsyncConnection, before: float) -> None:
    """Forget deliveries that came earlier."""
    await connection.execute(delete(deliveries).where(deliveries.c.received_at < before))


async def load_runners(connection: AsyncConnection) -> list[RunnerRecord]:
    """The runners of all workspaces."""
    return [_runner(row) for row in (await connection.execute(select(runners))).mappings()]


async def add_runner(connection: AsyncConnection, record: RunnerRecord) -> None:
    """Insert ``record``."""
    await connection.execute(insert(runners), asdict(record))


async def change_runner(connection: AsyncConnection, name: str, **values: Any) -> None:
    """Set columns of a runner."""
    await connection.execute(update(runners).where(runners.c.name == name).values(**values))


async def remove_runner(connection: AsyncConnection, name: str) -> None:
    """Delete a runner; a missing one is fine."""
    await connection.execute(delete(runners).where(runners.c.name == name))


def _runner(row: Mapping[Any, Any]) -> RunnerRecord:
    return RunnerRecord(**{**row, "phase": Phase(row["phase"])})
