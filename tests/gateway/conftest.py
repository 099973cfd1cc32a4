from __future__ import annotations

import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from pandastack.gateway import reach
from pandastack.gateway.postgres import sessions
from tests.gateway.native import Native, native_server
from tests.gateway.postgres_clients import DATABASE, PASSWORD, USER
from tests.gateway.world import World, gateway
from tests.support import postgres


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(reach, "REPORT_SECONDS", 0.2)  # what tests wait for
    async with gateway(World(), tmp_path) as world:
        with anyio.fail_after(30):
            yield world


@pytest.fixture
async def native() -> AsyncIterator[Native]:
    async with native_server() as native:
        yield native


@pytest.fixture(scope="session")
def postgres_port() -> Iterator[int]:
    """The port of a real server with the role and database ``app``."""
    if (lacking := postgres.missing()) is not None:
        pytest.skip(lacking)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with postgres.serving(port) as directory:
        for statement in (f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'", f"CREATE DATABASE {USER} OWNER {USER}"):
            psql = ["psql", "-qXh", directory, "-p", str(port), "-U", "pandastack", "-d", "postgres", "-c", statement]
            subprocess.run(psql, check=True)
        yield port


@pytest.fixture
async def door(tmp_path: Path, postgres_port: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A world with one database, whose server is real."""
    monkeypatch.setattr(reach, "REPORT_SECONDS", 0.2)  # what tests wait for
    monkeypatch.setattr(sessions, "USE_SECONDS", 0.1)
    async with gateway(World(databases={DATABASE: postgres_port}), tmp_path, postgres_port=0) as world:
        with anyio.fail_after(40):
            yield world


@pytest.fixture
async def lone_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A world with a door and no database."""
    monkeypatch.setattr(reach, "REPORT_SECONDS", 0.2)
    async with gateway(World(), tmp_path, postgres_port=0) as world:
        with anyio.fail_after(40):
            yield world
