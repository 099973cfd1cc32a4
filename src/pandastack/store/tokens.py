"""API tokens. Only their hashes are stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.store.schema import api_tokens


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """One API token: SHA-256 (hex) of its text, the prefix that is shown, and its owner. Times are in epoch seconds."""

    token_hash: str
    workspace: str
    prefix: str
    label: str
    created_at: float
    expires_at: float | None = None


async def add(connection: AsyncConnection, record: TokenRecord) -> None:
    """Insert ``record``."""
    await connection.execute(insert(api_tokens), asdict(record))


async def by_hash(connection: AsyncConnection, token_hash: str) -> TokenRecord | None:
    """The token with this hash."""
    rows = await connection.execute(select(api_tokens).where(api_tokens.c.token_hash == token_hash))
    row = rows.mappings().first()
    return None if row is None else TokenRecord(**row)


async def of_workspace(connection: AsyncConnection, workspace: str) -> list[TokenRecord]:
    """All tokens of a workspace, oldest first."""
    query = select(api_tokens).where(api_tokens.c.workspace == workspace).order_by(api_tokens.c.created_at)
    return [TokenRecord(**row) for row in (await connection.execute(query)).mappings()]


async def count(connection: AsyncConnection) -> int:
    """How many tokens there are in all workspaces."""
    return (await connection.execute(select(func.count()).select_from(api_tokens))).scalar_one()


async def remove(connection: AsyncConnection, workspace: str, prefix: str) -> bool:
    """Delete a token by its prefix; False when the workspace has no such token."""
    mine = (api_tokens.c.workspace == workspace) & (api_tokens.c.prefix == prefix)
    return (await connection.execute(delete(api_tokens).where(mine))).rowcount > 0
