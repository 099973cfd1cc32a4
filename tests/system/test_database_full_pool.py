"""A database that writes into a storage pool that is really full: it waits, and has lost nothing when there is room."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial

import pytest

from pandastack.errors import StorageFullError
from tests.support.databases import Database, DatabaseWorld, connected, index_agrees, writing
from tests.support.full_pools import MIB, full, small_pool
from tests.support.installation import Install, eventually

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def world(install: Install) -> Iterator[DatabaseWorld]:
    world = DatabaseWorld(small_pool(install, "postgres", gib=5))
    with world.stack:
        world.start()
        yield world


@pytest.fixture
def database(world: DatabaseWorld) -> Iterator[Database]:
    made = world.client.databases.create(label="waits")
    yield made
    world.client.databases.delete(made["id"])


def state(world: DatabaseWorld, database: Database) -> str | None:
    return world.client.databases.get(database["id"]).get("disk_state")


@pytest.mark.parametrize("killed", [False, True], ids=["waits", "is-killed"])
def test_a_full_pool_loses_no_row(world: DatabaseWorld, database: Database, killed: bool) -> None:
    databases, one = world.client.databases, database["id"]
    neighbour = databases.create(label="neighbour")
    try:
        with writing(database) as writers:
            writers.wait_for(5)
            machine = world.client.sandboxes.get(one).metrics()["pid"]
            with full(world.place, MIB):
                eventually(lambda: state(world, database) == "waiting", 120, "the machine stands still")
                assert databases.get(one)["status"] == "running"
                for refused in (partial(databases.update, one, disk_gb=11), databases.create):
                    with pytest.raises(StorageFullError):
                        refused()
                with connected(neighbour) as connection:
                    assert connection.execute("SELECT 1").fetchone() == (1,)
                if killed:
                    os.kill(machine, signal.SIGKILL)
            writers.wait_for(5)
            assert writers.check(world.find(database)) > 0
        eventually(lambda: state(world, database) == "ok", 30, "the disk has room")
        assert index_agrees(world.find(database))
        assert databases.update(one, disk_gb=11)["disk_gb"] == 11
    finally:
        databases.delete(neighbour["id"])
