"""Public keys of SSH clients."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.store.schema import ssh_keys


@dataclass(frozen=True, slots=True)
class SshKeyRecord:
    """One public key (``TYPE BASE64``), who added it, and its SHA-256 fingerprint. Times are in epoch seconds."""

    id: str
    workspace: str
    member: str
    name: str
    fingerprint: str
    public_key: str
    created_at: float
    last_used_at: float | None = None


async def add(connection: AsyncConnection, record: SshKeyRecord) -> None:
    """Insert ``record``."""
    await connection.execute(insert(ssh_keys), asdict(record))


async def of_workspace(connection: AsyncConnection, workspace: str) -> list[SshKeyRecord]:
    """All keys of a workspace, oldest first."""
    query = select(ssh_keys).where(ssh_keys.c.workspace == workspace).order_by(ssh_keys.c.created_at, ssh_keys.c.id)
    return [SshKeyRecord(**row) for row in (await connection.execute(query)).mappings()]


async def by_fingerprint(connection: AsyncConnection, workspace: str, fingerprint: str) -> SshKeyRecord | None:
    """The workspace's key with this fingerprint."""
    mine = (ssh_keys.c.workspace == workspace) & (ssh_keys.c.fingerprint == fingerprint)
    row = (await connection.execute(select(ssh_keys).where(mine))).mappings().first()
    return None if row is None else SshKeyRecord(**row)


async def used(connection: AsyncConnection, key_id: str, at: float) -> None:
    """Note when a key was used last."""
    await connection.execute(update(ssh_keys).where(ssh_keys.c.id == key_id).values(last_used_at=at))


async def remove(connection: AsyncConnection, workspace: str, key_id: str) -> bool:
    """Delete a key; False when the workspace has no such key."""
    mine = (ssh_keys.c.workspace == workspace) & (ssh_keys.c.id == key_id)
    return (await connection.execute(delete(ssh_keys).where(mine))).rowcount > 0
