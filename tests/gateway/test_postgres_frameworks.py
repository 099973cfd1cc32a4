"""Pools of SQLAlchemy and Django through the door: they sleep with their database, and get over what they lose."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.gateway.postgres_clients import DATABASE, HOST, PASSWORD, USER
from tests.gateway.world import World

pytestmark = pytest.mark.anyio

CLIENTS = 3
_PID = "SELECT pg_backend_pid()"


def url(world: World, driver: str) -> URL:
    """That of a database whose name is in the user's: no driver needs a server name for that."""
    options = {"asyncpg": {"ssl": "require"}, "psycopg": {"sslmode": "require"}}[driver]
    user = f"{USER}@{DATABASE}"
    return URL.create(f"postgresql+{driver}", user, PASSWORD, "127.0.0.1", world.postgres_port, USER, options)


@pytest.fixture(params=["asyncpg", "psycopg"])
async def engine(door: World, request: pytest.FixtureRequest) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url(door, request.param), pool_size=CLIENTS, pool_pre_ping=True)
    yield engine
    await engine.dispose()


async def sessions(engine: AsyncEngine) -> set[int]:
    """The sessions of the server that as many clients at once get from the pool."""
    found, together = set[int](), anyio.Event()

    async def one() -> None:
        async with engine.begin() as connection:
            found.add(int((await connection.execute(text(_PID))).scalar_one()))
            if len(found) == CLIENTS:
                together.set()
            await together.wait()

    async with anyio.create_task_group() as tasks:
        for _ in range(CLIENTS):
            tasks.start_soon(one)
    return found


async def test_a_pool_of_sqlalchemy_sleeps_and_wakes_with_its_database(door: World, engine: AsyncEngine) -> None:
    before = await sessions(engine)
    door.hibernate()
    assert await sessions(engine) == before
    assert door.wakes == 1


async def test_a_pool_of_sqlalchemy_gets_over_lost_sessions(door: World, engine: AsyncEngine) -> None:
    before = await sessions(engine)
    door.lose_memory(ending=1)
    assert not await sessions(engine) & before
    assert not door.asleep


@pytest.fixture
def django(door: World) -> Any:
    """Django's connection, which is kept and looked at before each use."""
    setup = pytest.importorskip("django").setup
    from django.conf import settings
    from django.db import ConnectionHandler

    place = {"ENGINE": "django.db.backends.postgresql", "HOST": HOST, "PORT": door.postgres_port, "NAME": USER}
    who = {"USER": USER, "PASSWORD": PASSWORD, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}
    options = {"OPTIONS": {"sslmode": "require", "hostaddr": "127.0.0.1"}}
    if not settings.configured:
        settings.configure(USE_TZ=True)
        setup()
    return ConnectionHandler({"default": place | who | options})["default"]


def _ask(connection: Any) -> int:
    """As a request of a Django application does it."""
    connection.close_if_unusable_or_obsolete()
    with connection.cursor() as cursor:
        cursor.execute(_PID)
        return int(cursor.fetchone()[0])


async def test_a_connection_of_django_sleeps_and_gets_over_its_loss(door: World, django: Any) -> None:
    limiter = anyio.CapacityLimiter(1)

    def ask() -> Any:
        return anyio.to_thread.run_sync(_ask, django, limiter=limiter)

    django.inc_thread_sharing()  # anyio chooses the thread
    before = await ask()
    door.hibernate()
    assert await ask() == before
    door.lose_memory(ending=1)
    assert await ask() != before
    await anyio.to_thread.run_sync(django.close, limiter=limiter)
