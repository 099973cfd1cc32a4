"""The migrations and the schema must say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from pandastack.errors import ServerError
from pandastack.store import migrations, open_store
from pandastack.store.product_schema import databases
from pandastack.store.schema import DEFAULT_WORKSPACE

pytestmark = pytest.mark.anyio

METADATA = databases.metadata  # the tables of both modules


def differences(connection: Connection) -> list[object]:
    options = {"compare_type": True, "target_metadata": METADATA}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))


def constraints(connection: Connection) -> dict[str, object]:
    """What Alembic's comparison leaves out on SQLite."""
    found = inspect(connection)
    return {
        table: (found.get_pk_constraint(table), found.get_foreign_keys(table), found.get_unique_constraints(table))
        for table in found.get_table_names()
        if table != "alembic_version"
    }


def test_head_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.DIRECTORY))
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]


async def test_migrations_build_the_schema(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/migrated.db") as store, store.read() as connection:
        assert await connection.run_sync(differences) == []
        migrated = await connection.run_sync(constraints)
    async with open_store(f"sqlite:///{tmp_path}/direct.db") as store, store.write() as connection:
        await connection.run_sync(METADATA.drop_all)
        await connection.run_sync(METADATA.create_all)
        assert migrated == await connection.run_sync(constraints)


async def test_every_database_gets_the_schema(empty_database: str) -> None:
    async with open_store(empty_database) as store, store.read() as connection:
        assert await connection.run_sync(differences) == []
        assert (await connection.execute(text("SELECT id FROM workspaces"))).scalars().all() == [DEFAULT_WORKSPACE]


async def test_the_comparison_sees_a_missing_column(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store, store.write() as connection:
        await connection.execute(text("ALTER TABLE api_tokens DROP COLUMN label"))
        assert len(await connection.run_sync(differences)) == 1


async def test_a_database_of_a_newer_version_is_refused_untouched(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_store(url) as store, store.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ServerError, match="does not know"):
        async with open_store(url):
            pass


async def test_a_failed_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    upgrade = migrations.upgrade

    def broken(connection: Connection) -> None:
        upgrade(connection)
        raise ServerError("power cut")

    monkeypatch.setattr(migrations, "upgrade", broken)
    with pytest.raises(ServerError, match="power cut"):
        async with open_store(url):
            pass
    monkeypatch.undo()
    async with open_store(url) as store, store.read() as connection:
        assert await connection.run_sync(differences) == []
