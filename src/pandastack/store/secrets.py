"""Secrets. Their values are encrypted before they come here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.store.schema import secrets

WORKSPACE = ""
"""The owner of the secrets that a workspace shares."""

REGISTRIES = "registries"
"""The owner of what a workspace signs in to registries of images with, by the registry's name."""

DATABASES = "databases"
"""The owner of the passwords of a workspace's databases, by their ids."""

FUNCTIONS = "functions"
"""The owner of the environments of a workspace's functions, by their ids."""

WEBHOOKS = "webhooks"
"""The owner of what a workspace's deliveries are signed with, by the ids of their endpoints."""

GITHUB = "github"
"""The owner of what a workspace speaks to GitHub with."""

_NO_SANDBOXES = (WORKSPACE, REGISTRIES, DATABASES, FUNCTIONS, WEBHOOKS, GITHUB)


@dataclass(frozen=True, slots=True)
class SecretRecord:
    """One secret of a workspace, of its sandbox ``owner``, or of one of the parts above. ``sealed`` is the value,
    encrypted with the key ``key_id``. Times are in epoch seconds."""

    workspace: str
    name: str
    placeholder: str
    key_id: str
    sealed: bytes = field(repr=False)
    created_at: float
    updated_at: float
    owner: str = WORKSPACE
    hosts: tuple[str, ...] = ()


async def add(connection: AsyncConnection, *records: SecretRecord) -> None:
    """Insert ``records``. Those of a sandbox disappear with it."""
    rows = [
        {
            **asdict(each),
            "hosts": list(each.hosts),
            "sandbox_id": None if each.owner in _NO_SANDBOXES else each.owner,
        }
        for each in records
    ]
    if rows:
        await connection.execute(insert(secrets), rows)


async def change(connection: AsyncConnection, record: SecretRecord, **values: Any) -> None:
    """Set columns of a record."""
    await connection.execute(update(secrets).where(_is(record.workspace, record.owner, record.name)).values(**values))


async def get(connection: AsyncConnection, workspace: str, name: str, owner: str = WORKSPACE) -> SecretRecord | None:
    """A secret that the workspace shares, or of another owner."""
    rows = await connection.execute(select(*_COLUMNS).where(_is(workspace, owner, name)))
    row = rows.mappings().first()
    return None if row is None else _record(row)


async def of_owner(connection: AsyncConnection, workspace: str, owner: str = WORKSPACE) -> list[SecretRecord]:
    """The secrets of an owner, or those that the workspace shares, by name."""
    mine = (secrets.c.workspace == workspace) & (secrets.c.owner == owner)
    rows = await connection.execute(select(*_COLUMNS).where(mine).order_by(secrets.c.name))
    return [_record(row) for row in rows.mappings()]


async def names_of(connection: AsyncConnection, owner: str) -> list[tuple[str, str]]:
    """Workspace and name of all that is an owner's."""
    found = select(secrets.c.workspace, secrets.c.name).where(secrets.c.owner == owner)
    return [(workspace, name) for workspace, name in await connection.execute(found)]


async def count(connection: AsyncConnection, workspace: str) -> int:
    """How many secrets the workspace shares."""
    mine = (secrets.c.workspace == workspace) & (secrets.c.owner == WORKSPACE)
    return (await connection.execute(select(func.count()).select_from(secrets).where(mine))).scalar_one()


async def load_all(connection: AsyncConnection) -> list[SecretRecord]:
    """Every secret of every workspace."""
    return [_record(row) for row in (await connection.execute(select(*_COLUMNS))).mappings()]


async def remove(connection: AsyncConnection, workspace: str, name: str, owner: str = WORKSPACE) -> bool:
    """Delete a secret that the workspace shares, or of another owner; False when there is none."""
    return (await connection.execute(delete(secrets).where(_is(workspace, owner, name)))).rowcount > 0


_COLUMNS = [each for each in secrets.c if each.name != "sandbox_id"]


def _is(workspace: str, owner: str, name: str) -> Any:
    return (secrets.c.workspace == workspace) & (secrets.c.owner == owner) & (secrets.c.name == name)


def _record(row: Mapping[Any, Any]) -> SecretRecord:
    return SecretRecord(**{**row, "hosts": tuple(row["hosts"])})
