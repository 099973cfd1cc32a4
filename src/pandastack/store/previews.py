"""Tokens of previews. Only their hashes are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.store.schema import preview_tokens


@dataclass(frozen=True, slots=True)
class PreviewToken:
    """One token: SHA-256 (hex) of its text, the prefix that is shown, and what it opens. Times are in epoch seconds.

    ``paths`` are the prefixes that it is limited to; empty: none.
    """

    token_hash: str
    workspace: str
    sandbox_id: str
    prefix: str
    port: int
    created_at: float
    expires_at: float
    paths: Sequence[str] = ()


async def add(connection: AsyncConnection, record: PreviewToken) -> None:
    """Insert ``record``; drop the sandbox's tokens that had expired by then."""
    old = (preview_tokens.c.sandbox_id == record.sandbox_id) & (preview_tokens.c.expires_at <= record.created_at)
    await connection.execute(delete(preview_tokens).where(old))
    await connection.execute(insert(preview_tokens), {**asdict(record), "paths": list(record.paths)})


async def by_hash(connection: AsyncConnection, token_hash: str) -> PreviewToken | None:
    """The token with this hash."""
    rows = await connection.execute(select(preview_tokens).where(preview_tokens.c.token_hash == token_hash))
    row = rows.mappings().first()
    return None if row is None else PreviewToken(**row)


async def of_sandbox(connection: AsyncConnection, sandbox_id: str) -> list[PreviewToken]:
    """The tokens of a sandbox, oldest first."""
    mine = preview_tokens.c.sandbox_id == sandbox_id
    query = select(preview_tokens).where(mine).order_by(preview_tokens.c.created_at)
    return [PreviewToken(**row) for row in (await connection.execute(query)).mappings()]


async def remove(connection: AsyncConnection, sandbox_id: str, prefix: str) -> bool:
    """Delete a token by its prefix; False when the sandbox has no such token."""
    mine = (preview_tokens.c.sandbox_id == sandbox_id) & (preview_tokens.c.prefix == prefix)
    return (await connection.execute(delete(preview_tokens).where(mine))).rowcount > 0
