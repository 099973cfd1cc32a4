"""SQLAlchemy's own tests of dialects, through the door and TLS, by psycopg."""

from __future__ import annotations

from pathlib import Path

import anyio.to_thread
import pytest
from sqlalchemy import URL

from tests.gateway.postgres_clients import DATABASE, PASSWORD, USER
from tests.gateway.world import World, gateway
from tests.support.sqlalchemy_suite import run_suite

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LEAST = 1000
"""Of tests that pass: fewer mean that features were not asked for."""


async def test_the_suite_of_sqlalchemy_passes(tmp_path: Path, postgres_port: int) -> None:
    (tmp_path / "suite").mkdir()
    async with gateway(World(databases={DATABASE: postgres_port}), tmp_path, postgres_port=0) as world:
        port, who = world.postgres_port, f"{USER}@{DATABASE}"
        url = URL.create("postgresql+psycopg", who, PASSWORD, "127.0.0.1", port, USER, {"sslmode": "require"})
        _, passed, skipped = await anyio.to_thread.run_sync(run_suite, tmp_path / "suite", url)
    print(f"{passed} passed, {skipped} skipped")
    assert passed >= LEAST
