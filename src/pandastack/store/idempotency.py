"""Idempotency keys: the request under each, and its answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.store.schema import idempotency_keys as table


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key of one token. ``fingerprint`` is the SHA-256 (hex) of the request; ``created_at`` is in epoch seconds.

    ``object_id`` is the id that the request's object gets. ``status`` is None until the request has been answered;
    ``answer`` is None if the answer is not stored.
    """

    token: str
    key: str
    workspace: str
    fingerprint: str
    object_id: str
    created_at: float
    status: int | None = None
    answer: bytes | None = None


_NAMED = (table.c.token == bindparam("of_token")) & (table.c.key == bindparam("of_key"))
_INSERT = insert(table).inline()
_FIND = select(table).where(_NAMED)
_ANSWER = update(table).where(_NAMED).values(status=bindparam("status"), answer=bindparam("answer"))
_DELETE = delete(table).where(_NAMED)


async def add(connection: AsyncConnection, record: KeyRecord) -> None:
    """Insert ``record``."""
    await connection.execute(_INSERT, asdict(record))


async def find(connection: AsyncConnection, token: str, key: str) -> KeyRecord | None:
    """The record of a key, or None."""
    row = (await connection.execute(_FIND, {"of_token": token, "of_key": key})).mappings().first()
    return None if row is None else KeyRecord(**row)


async def set_answer(connection: AsyncConnection, token: str, key: str, status: int, answer: bytes | None) -> None:
    """Store the answer to the request of a key."""
    values = {"of_token": token, "of_key": key, "status": status, "answer": answer}
    await connection.execute(_ANSWER, values)


async def remove(connection: AsyncConnection, token: str, key: str) -> None:
    """Delete a key; a missing one is fine."""
    await connection.execute(_DELETE, {"of_token": token, "of_key": key})


async def remove_older(connection: AsyncConnection, created_at: float) -> None:
    """Delete the keys that were first used before ``created_at`` (epoch seconds)."""
    await connection.execute(delete(table).where(table.c.created_at < created_at))


async def remove_oldest(connection: AsyncConnection, token: str, keep: int) -> list[str]:
    """Delete all keys of a token except the ``keep`` newest, which are returned."""
    mine = table.c.token == token
    newest = select(table.c.key, table.c.created_at).where(mine).order_by(table.c.created_at.desc()).limit(keep)
    kept = (await connection.execute(newest)).all()
    if len(kept) == keep:
        await connection.execute(delete(table).where(mine & (table.c.created_at < kept[-1].created_at)))
    return [row.key for row in kept]


async def names(connection: AsyncConnection) -> list[tuple[str, str]]:
    """Token and key of every record."""
    return [(token, key) for token, key in await connection.execute(select(table.c.token, table.c.key))]
