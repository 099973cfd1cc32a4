"""Restores of databases in real machines: to a second before a mistake, to another size, with the source asleep."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pandastack import BadRequestError, Client
from tests.support.installation import Install, eventually, serving

pytestmark = pytest.mark.skipif(shutil.which("psql") is None, reason="this host has no psql")

Database = Mapping[str, Any]


@pytest.fixture(scope="module")
def client(install: Install) -> Iterator[Client]:
    with serving(install("postgres", PANDASTACK_READY_MACHINES="1")) as (_, client):
        yield client


def run(database: Database, sql: str) -> str:
    environment = {**os.environ, "PGHOSTADDR": "127.0.0.1", "PGSSLMODE": "require", "PGCONNECT_TIMEOUT": "60"}
    argv = ["psql", "-XAtqv", "ON_ERROR_STOP=1", "-c", sql, database["connection_url"]]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


NOW = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"


def test_to_a_second_before_a_table_was_dropped(client: Client) -> None:
    source = client.databases.create(label="orders")
    run(source, "CREATE TABLE orders (id int); INSERT INTO orders SELECT generate_series(1, 1000)")
    saved = client.databases.backup(source["id"])
    assert len(saved["bases"]) == 1 and saved["archive"]["state"] == "archiving"
    run(source, "INSERT INTO orders SELECT generate_series(1001, 1234)")
    run(source, "SELECT pg_sleep(1)")
    moment = run(source, NOW)
    run(source, "SELECT pg_sleep(1)")
    run(source, "DROP TABLE orders")
    with pytest.raises(BadRequestError, match="target_time") as refused:
        client.databases.clone(source["id"], target_time="2020-01-01T00:00:00Z")
    assert refused.value.status == 400
    restored = client.databases.clone(source["id"], target_time=moment, label="before")
    assert run(restored, "SELECT count(*) FROM orders") == "1234"
    assert restored["cloned_from"] == source["id"] and restored["password"] != source["password"]
    run(restored, "DELETE FROM orders WHERE id > 10")

    after = run(source, NOW)  # nothing is committed after it: the end of the log
    client.databases.update(source["id"], always_on=False)
    second = client.databases.clone(source["id"], target_time=after)
    assert run(second, "SELECT to_regclass('orders') IS NULL") == "t"
    client.databases.delete(source["id"])
    client.databases.delete(second["id"])

    def archived() -> Any:
        window = client.databases.get(restored["id"]).get("restore_window")
        return window and window["earliest"]

    eventually(archived, 60, "a restored database has an archive of its own")
    assert run(restored, "SELECT count(*) FROM orders") == "10"
    client.databases.delete(restored["id"])


@pytest.mark.slow
def test_restores_are_tried_out(install: Install) -> None:
    place = install("postgres", PANDASTACK_READY_MACHINES="1", PANDASTACK_DATABASE_DRILL_SECONDS="5")
    with serving(place) as (server, client):
        source = client.databases.create()
        client.databases.backup(source["id"])
        run(source, "CREATE TABLE t (x int)")
        drill = eventually(lambda: client.databases.backups(source["id"]).get("drill"), 120, "a restore is tried out")
        assert "error" not in drill
        with server.http() as http:
            assert 'pandastack_database_drills_total{result="ok"}' in http.get(f"{server.url}/metrics").text
        client.databases.delete(source["id"])
