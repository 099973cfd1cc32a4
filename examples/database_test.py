"""A database for each test: every test has a copy of one that was prepared once, and may do to it what it likes.

Run it with pytest. Copies are made of the running server, so a test does not wait for a schema or for data.
"""

import os
import subprocess
from urllib.parse import urlsplit

import pytest

from pandastack import Client

SCHEMA = """
CREATE TABLE accounts (name text PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0));
INSERT INTO accounts SELECT 'account ' || n, 100 FROM generate_series(1, 1000) AS n;
"""


class Database:
    """What a test gets: a database that is its own."""

    def __init__(self, record: dict, host: str) -> None:
        self.record = record
        self._host = host

    def run(self, sql: str) -> str:
        """What psql prints. The gateway's address is where the API is, whatever the database's name resolves to."""
        it = self.record
        where = {"PGHOST": it["host"], "PGHOSTADDR": self._host, "PGPORT": str(it["port"]), "PGSSLMODE": "require"}
        who = {"PGUSER": it["username"], "PGDATABASE": it["database"], "PGPASSWORD": it["password"]}
        argv = ["psql", "-XAtqv", "ON_ERROR_STOP=1", "-c", sql]
        done = subprocess.run(argv, env={**os.environ, **where, **who}, capture_output=True, text=True, check=True)
        return done.stdout.strip()


@pytest.fixture(scope="session")
def prepared():
    """The database that all copies are made of, with the client that makes them."""
    client = Client()
    server = urlsplit(client.api_url).hostname or "127.0.0.1"
    host = "127.0.0.1" if server == "localhost" else server
    made = client.databases.create(label="prepared for tests")
    Database(made, host).run(SCHEMA)
    yield client, made, host
    client.databases.delete(made["id"])


@pytest.fixture
def database(prepared):
    """A copy for one test."""
    client, source, host = prepared
    copy = client.databases.clone(source["id"], label="a test")
    yield Database(copy, host)
    client.databases.delete(copy["id"])


def test_money_moves(database):
    database.run("UPDATE accounts SET balance = balance - 30 WHERE name = 'account 1'")
    database.run("UPDATE accounts SET balance = balance + 30 WHERE name = 'account 2'")
    assert database.run("SELECT sum(balance) FROM accounts") == "100000"


def test_no_account_is_overdrawn(database):
    with pytest.raises(subprocess.CalledProcessError):
        database.run("UPDATE accounts SET balance = balance - 101 WHERE name = 'account 1'")


def test_what_another_test_has_done_is_not_seen(database):
    database.run("DROP TABLE accounts")
