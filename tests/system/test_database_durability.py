"""What a database has acknowledged is there, whatever is killed; and it is back by itself on the next connection."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from shutil import which

import psycopg
import pytest

from tests.support.databases import (
    Database,
    DatabaseWorld,
    Writers,
    after,
    connected,
    index_agrees,
    parameters,
    writing,
)
from tests.support.installation import Install
from tests.support.machines import kill_machines

ROUNDS = int(os.environ.get("DURABILITY_ROUNDS") or 200)
SEED = int(os.environ.get("DURABILITY_SEED") or secrets.randbits(32))
ALL_ROWS = 20
"""Every so many rounds, and in the end, all rows are looked at; in between those that are new."""
CLIENTS, TRANSACTIONS = 20, 25
_NAMES = {"a": "accounts", "b": "branches", "t": "tellers"}
_AGAIN_SECONDS = 4.0
"""Within this time of a machine's end its database boots: another end is to meet it anywhere in between."""

Accident = Callable[[DatabaseWorld, Database, random.Random], bool]
"""Returns whether the server is gone."""


@pytest.fixture(scope="module")
def world(install: Install) -> Iterator[DatabaseWorld]:
    # No machines are made ahead: after each accident they would be made anew beside the one that recovers.
    world = DatabaseWorld(install("postgres", PANDASTACK_READY_MACHINES="0"))
    with world.stack:
        world.start()
        yield world


@pytest.fixture
def database(world: DatabaseWorld) -> Iterator[Database]:
    made = world.client.databases.create(label="kept")
    yield made
    world.client.databases.delete(made["id"])


def machine(world: DatabaseWorld, database: Database, _: random.Random) -> bool:
    world.kill_machine(database)
    return False


def server(world: DatabaseWorld, _: Database, __: random.Random) -> bool:
    world.server.kill()
    return True


def machine_and_server(world: DatabaseWorld, database: Database, _: random.Random) -> bool:
    world.kill_machine(database)
    world.server.kill()
    return True


def server_and_machines(world: DatabaseWorld, _: Database, __: random.Random) -> bool:
    world.server.kill()
    kill_machines(world.place)
    return True


def reboot(world: DatabaseWorld, _: Database, __: random.Random) -> bool:
    world.reboot()
    return True


def machine_twice(world: DatabaseWorld, database: Database, chance: random.Random) -> bool:
    world.kill_machine(database)
    after(chance.uniform(0, _AGAIN_SECONDS))
    kill_machines(world.place)
    return False


def server_twice(world: DatabaseWorld, database: Database, chance: random.Random) -> bool:
    world.kill_machine(database)
    after(chance.uniform(0, _AGAIN_SECONDS))
    world.server.kill()
    return True


EACH: tuple[Accident, ...] = (machine, server, machine_and_server, server_and_machines, reboot)
ALL: tuple[Accident, ...] = (*EACH, machine_twice, server_twice)


def live_through(
    world: DatabaseWorld,
    database: Database,
    writers: Writers,
    accident: Accident,
    chance: random.Random,
    *,
    newer: bool = False,
) -> int:
    """One accident at some moment, and what follows; returns the number of rows that are there."""
    writers.wait_for(chance.randint(1, 30))
    after(chance.uniform(0, 0.05))
    if accident(world, database, chance):
        world.start()
        writers.moved(world.find(database))
    writers.wait_for(1)
    return writers.check(world.find(database), newer=newer)


def test_every_acknowledged_row_is_there(world: DatabaseWorld, database: Database) -> None:
    with writing(database) as writers:
        for accident in EACH:
            assert live_through(world, database, writers, accident, random.Random(accident.__name__)) > 0
    assert index_agrees(world.find(database))


@pytest.mark.slow
def test_many_accidents_in_any_order(world: DatabaseWorld, database: Database) -> None:
    """``DURABILITY_ROUNDS`` says how many, ``DURABILITY_SEED`` repeats the choices of a run (not its timing)."""
    chance = random.Random(SEED)
    with writing(database) as writers:
        for number in range(1, ROUNDS + 1):
            accident, began = chance.choice(ALL), time.monotonic()
            newer = number % ALL_ROWS != 0
            rows = live_through(world, database, writers, accident, chance, newer=newer)
            took = f"{time.monotonic() - began:.0f} s"
            print(f"{number} of {ROUNDS}, seed {SEED}: {accident.__name__}, {rows} rows, {took}", flush=True)
        writers.check(world.find(database))
    assert index_agrees(world.find(database))


@pytest.mark.skipif(which("pgbench") is None, reason="this host has no pgbench")
def test_pgbench_goes_on_while_the_server_is_killed(world: DatabaseWorld, database: Database) -> None:
    """Sessions are the gateway's and the machine's, which live on: not one transaction fails."""
    words = parameters(database)
    where = " ".join(f"{name}={words[name]}" for name in words if name != "password")
    environment = os.environ | {"PGPASSWORD": str(words["password"])}
    subprocess.run(["pgbench", "-iq", where], env=environment, check=True, capture_output=True)
    argv = ["pgbench", "-nc", str(CLIENTS), "-t", str(TRANSACTIONS), where]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    bench = subprocess.Popen(argv, env=environment, text=True, **pipes)  # type: ignore[call-overload]
    with bench, connected(database) as connection:
        while not history(connection):
            after(0.05)
        world.server.kill()
        world.start()
        printed, _ = bench.communicate(timeout=300)
        assert bench.returncode == 0, printed
        assert history(connection) == CLIENTS * TRANSACTIONS
        sums = [f"(SELECT sum({each}balance) FROM pgbench_{name})" for each, name in _NAMES.items()]
        row = connection.execute(f"SELECT {', '.join(sums)}, sum(delta) FROM pgbench_history").fetchone()  # type: ignore[arg-type]
        assert row is not None and len(set(row)) == 1


def history(connection: psycopg.Connection[object]) -> int:
    row = connection.execute("SELECT count(*) FROM pgbench_history").fetchone()
    assert row is not None
    return int(str(row[0]))  # type: ignore[index]
