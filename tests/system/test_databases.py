"""Databases in real machines, by psql through the gateway."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from pandastack import Client, ConflictError, NotFoundError
from tests.support.databases import after, connected
from tests.support.installation import Install, Installation, Server, eventually, serving
from tests.support.tenants import tenant

pytestmark = pytest.mark.skipif(shutil.which("psql") is None, reason="this host has no psql")

Database = Mapping[str, Any]

CLIENTS = 20
"""Connected to a database that is copied, a quarter of them in the middle of a transaction."""


@dataclass
class World:
    """A server that can be started again, with its client."""

    place: Installation
    stack: ExitStack = field(default_factory=ExitStack)
    server: Server = None  # type: ignore[assignment]
    client: Client = None  # type: ignore[assignment]

    def start(self, **settings: str) -> None:
        """End the server that runs, if one does, and start one with further settings."""
        self.stack.close()
        self.server, self.client = self.stack.enter_context(serving(self.place, **settings))

    def kill(self) -> None:
        """Kill the server, and start another."""
        self.server.kill()
        self.start()

    def get(self, database: Database) -> Database:
        """The database as it is now: another server may have another port."""
        return self.client.databases.get(database["id"])

    def ready(self, database: Database) -> Database:
        """The same, once it runs and the gateway answers for it."""
        return self.client.databases.wait_until_ready(database["id"], timeout=60)


@pytest.fixture(scope="module")
def world(install: Install) -> Iterator[World]:
    world = World(install("postgres", PANDASTACK_READY_MACHINES="1"))
    with world.stack:
        world.start()
        yield world


@pytest.fixture
def client(world: World) -> Client:
    return world.client


@pytest.fixture(scope="module")
def made(world: World) -> Database:
    """One for the whole module, with a table."""
    made = world.client.databases.create(label="orders")
    run(made, "CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders SELECT generate_series(1, 1000)")
    return made


@pytest.fixture
def database(world: World, made: Database) -> Database:
    """The same, as it is now."""
    return world.get(made)


def environment_of(database: Database, **more: str) -> dict[str, str]:
    names = {
        "PGHOST": database["host"],
        "PGHOSTADDR": "127.0.0.1",
        "PGPORT": str(database["port"]),
        "PGUSER": database["username"],
        "PGDATABASE": database["database"],
        "PGPASSWORD": database["password"],
        "PGSSLMODE": "require",
        "PGCONNECT_TIMEOUT": "60",
    }
    return {**os.environ, **names, **more}


def psql(database: Database, sql: str, **more: str) -> subprocess.CompletedProcess[str]:
    argv = ["psql", "-XAtqv", "ON_ERROR_STOP=1", "-c", sql]
    environment = environment_of(database, **more)
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=100, check=False)


def run(database: Database, sql: str, **more: str) -> str:
    done = psql(database, sql, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def sleeping(database: Database) -> subprocess.Popen[str]:
    """A session that is in the middle of a query, once the server has it."""
    argv = ["psql", "-XAtqc", "SELECT 'begun'", "-c", "SELECT pg_sleep(600)"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    session = subprocess.Popen(argv, env=environment_of(database), text=True, **pipes)  # type: ignore[call-overload]
    assert session.stdout.readline() == "begun\n"
    return session  # type: ignore[no-any-return]


def count(database: Database) -> str:
    return run(database, "SELECT count(*) FROM orders")


def test_a_query_over_tls(database: Database, client: Client) -> None:
    assert count(database) == "1000"
    assert run(database, "SHOW server_version").startswith("16.")
    assert run(database, "CREATE EXTENSION vector; SELECT '[1,2]'::vector <-> '[1,3]'") == "1"
    assert run(database, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == "f"
    wrong = psql(database, "SELECT 1", PGPASSWORD="wrong")
    assert wrong.returncode == 2 and "password authentication failed" in wrong.stderr
    for user in ("postgres", "nobody"):
        assert "password authentication failed" in psql(database, "SELECT 1", PGUSER=user).stderr
    plain = psql(database, "SELECT 1", PGSSLMODE="disable")
    assert plain.returncode == 2
    numbers = client.databases.stats(database["id"])
    assert numbers["postgres_version"].startswith("16.") and numbers["max_connections"] == 100
    assert numbers["db_size_bytes"] > 1 << 20 and numbers["disk_size_bytes"] > 8 << 30
    assert 0 < numbers["disk_used_pct"] < 50
    assert 'relation "nothing" does not exist' in psql(database, "SELECT * FROM nothing").stderr
    eventually(lambda: "nothing" in client.databases.logs(database["id"]), 10, "the error is in the log")


def test_an_unknown_database_looks_like_a_wrong_password(database: Database) -> None:
    stranger = {**database, "host": database["host"].replace(database["id"], "0" * 8 + database["id"][8:])}
    assert "password authentication failed" in psql(stranger, "SELECT 1").stderr


def test_copies(database: Database, client: Client) -> None:
    session = sleeping(database)
    try:
        with ExitStack() as stack:
            others = [stack.enter_context(connected(database)) for _ in range(CLIENTS)]
            for number, each in enumerate(others[: CLIENTS // 4]):
                each.execute("BEGIN")
                each.execute("INSERT INTO orders VALUES (%s)", (9000 + number,))
            backup = stack.enter_context(ThreadPoolExecutor()).submit(client.databases.backup, database["id"])
            branch = client.databases.clone(database["id"], label="try")
            backup.result(120)
            for each in others[: CLIENTS // 4]:
                each.execute("ROLLBACK")  # those of the source have continued
        assert branch["cloned_from"] == database["id"] and branch["password"] != database["password"]
        assert count(branch) == "1000"
        old = psql(branch, "SELECT 1", PGPASSWORD=database["password"])
        assert "password authentication failed" in old.stderr
        others = "SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()"
        assert run(branch, others) == "0"
        assert run(database, others) == "1"
        assert session.poll() is None, "the session of the source goes on"
        run(branch, "DELETE FROM orders WHERE id > 10")
        second = client.databases.clone(branch["id"])
        assert (count(second), count(branch), count(database)) == ("10", "10", "1000")
        assert "failed" in psql(second, "SELECT 1", PGPASSWORD=branch["password"]).stderr
        client.databases.delete(branch["id"])
        assert count(second) == "10"
        assert "password authentication failed" in psql(branch, "SELECT 1").stderr
        client.databases.delete(second["id"])
    finally:
        session.send_signal(signal.SIGINT)  # the query ends with its client: one that goes on keeps the database awake
        session.communicate(timeout=30)


def test_the_machine_cannot_be_deleted_by_itself(database: Database, client: Client) -> None:
    machine = client.sandboxes.get(database["id"])
    for use in (machine.kill, machine.hibernate, machine.fork, lambda: machine.exec("true")):
        with pytest.raises(ConflictError, match="is the machine of a database"):
            use()
    assert count(database) == "1000"


def test_other_credentials_end_old_sessions(client: Client) -> None:
    other = client.databases.create()
    session = sleeping(other)
    renewed = client.databases.reset_credentials(other["id"])
    _, printed = session.communicate(timeout=30)
    assert session.returncode != 0, printed
    assert "password authentication failed" in psql(other, "SELECT 1").stderr
    assert run(renewed, "SELECT 1") == "1"
    client.databases.delete(other["id"])


def test_another_workspace_sees_nothing(world: World, database: Database) -> None:
    with tenant(world.server, "elsewhere") as other:
        assert other.databases.list() == []
        for use in (
            other.databases.get,
            other.databases.clone,
            other.databases.reset_credentials,
            other.databases.delete,
        ):
            with pytest.raises(NotFoundError):
                use(database["id"])
    assert count(database) == "1000"


def begin(session: psycopg.Connection[Any]) -> float:
    """Leave a session in the middle of a transaction that would be ended after ten seconds of silence; returns when."""
    session.execute("CREATE TEMP TABLE kept AS SELECT 7 AS it")
    session.execute("PREPARE prepared AS SELECT it + 1 FROM kept")
    session.execute("LISTEN news")
    session.execute("SET idle_in_transaction_session_timeout = '10s'")
    session.execute("BEGIN")
    session.execute("INSERT INTO orders VALUES (5000)")
    session.execute("SELECT id FROM orders WHERE id = 1 FOR UPDATE")
    for cursor in ("held CURSOR WITH HOLD", "brief CURSOR"):
        session.execute(f"DECLARE {cursor} FOR SELECT id FROM orders ORDER BY id")  # type: ignore[arg-type]
        assert value(session, f"FETCH {cursor.split()[0]}") == 1
    session.execute("SAVEPOINT before")
    session.execute("INSERT INTO orders VALUES (5001)")
    return time.monotonic()


def value(session: psycopg.Connection[Any], sql: str) -> Any:
    (found,) = session.execute(sql).fetchone() or (None,)  # type: ignore[arg-type]
    return found


def test_an_open_transaction_sleeps_with_its_database(world: World, database: Database) -> None:
    world.start(PANDASTACK_IDLE_AFTER="2")
    database = world.ready(database)
    with connected(database) as session, connected(database) as other:
        began = begin(session)
        eventually(lambda: is_asleep(world, database), 60, "it sleeps")
        after(began + 11 - time.monotonic())
        assert is_asleep(world, database), "and its clients wake nothing by being there"
        with pytest.raises(psycopg.errors.LockNotAvailable):  # the other client wakes it, and meets the lock
            other.execute("SELECT id FROM orders WHERE id = 1 FOR UPDATE NOWAIT")
        assert value(other, "SELECT count(*) FROM orders") == 1000
        assert value(session, "FETCH brief") == 2, "the time asleep is not counted as silence"
        assert value(session, "SELECT clock_timestamp() - now() > '11s'") is True
        session.execute("ROLLBACK TO before")
        session.execute("COMMIT")
        assert value(session, "FETCH held") == 2
        assert (value(session, "EXECUTE prepared"), value(session, "SELECT pg_listening_channels()")) == (8, "news")
        assert value(other, "DELETE FROM orders WHERE id >= 5000 RETURNING id") == 5000


def test_one_that_is_idle_sleeps_and_wakes_for_a_client(world: World, database: Database) -> None:
    awake = world.client.databases.create(label="awake", always_on=True)
    asleep = eventually(lambda: is_asleep(world, database), 60, "it sleeps")
    assert asleep["connection_url"] and asleep["password"] == database["password"]
    assert count(asleep) == "1000"
    eventually(lambda: is_asleep(world, database), 60, "it sleeps again")
    world.client.databases.wake(database["id"])
    assert world.client.databases.wait_until_ready(database["id"])["status"] == "running"
    assert world.get(awake)["status"] == "running"
    world.client.databases.delete(awake["id"])


def is_asleep(world: World, database: Database) -> Database | None:
    found = world.get(database)
    return found if found["status"] == "hibernated" and "connection_url" in found else None


def test_what_was_committed_survives_stops_and_kills(world: World, database: Database) -> None:
    world.start()
    for number, again in enumerate((world.start, world.kill)):
        run(world.ready(database), f"INSERT INTO orders VALUES ({2000 + number})")
        again()
        assert world.get(database)["password"] == database["password"]
        assert count(world.ready(database)) == str(1001 + number)
    os.kill(world.client.sandboxes.get(database["id"]).metrics()["pid"], signal.SIGKILL)  # its memory is lost
    eventually(lambda: is_asleep(world, database), 30, "its machine is gone")
    assert count(world.get(database)) == "1002"
    world.client.databases.delete(database["id"])
    with pytest.raises(NotFoundError):
        world.get(database)
