"""Statements over HTTP and whole databases as files, in real machines."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx
import pytest

from pandastack import BadRequestError, Client, ConnectionError, NotFoundError, ServerError
from tests.support.installation import Install, Installation, Server, eventually, serving

Database = Mapping[str, Any]


@pytest.fixture(scope="module")
def place(install: Install) -> Installation:
    return install("postgres", PANDASTACK_READY_MACHINES="1")


@pytest.fixture(scope="module")
def served(place: Installation) -> Iterator[tuple[Server, Client]]:
    with serving(place) as pair:
        yield pair


@pytest.fixture(scope="module")
def client(served: tuple[Server, Client]) -> Client:
    return served[1]


@pytest.fixture(scope="module")
def database(client: Client) -> Database:
    """One for the whole module, with a table that no file of it fits into one piece."""
    made = client.databases.create(label="data")
    client.databases.execute(made["id"], "CREATE EXTENSION vector")
    client.databases.execute(made["id"], "CREATE TABLE orders (id int PRIMARY KEY, place vector(2), what text)")
    filled = "INSERT INTO orders SELECT g, '[1,2]', md5(g::text) || repeat(' ä', 20) FROM generate_series(1, 20000) g"
    assert client.databases.execute(made["id"], filled) == 20000
    return made


def count(client: Client, database: Database, table: str = "orders", inner: str = "pandastack") -> Any:
    return client.databases.query(database["id"], f"SELECT count(*) FROM {table}", database=inner)["rows"][0][0]


def test_statements(client: Client, database: Database) -> None:
    one = database["id"]
    found = client.databases.query(one, "SELECT id, place, current_user FROM orders WHERE id = $1", [7])
    assert [each["type"] for each in found["columns"]] == ["int4", "vector", "name"]
    assert found["rows"] == [[7, "[1,2]", "pandastack"]]
    answer = httpx.post(
        f"{database['broker_url']}/v1/query",
        json={"database": "pandastack", "sql": "SELECT rolsuper FROM pg_roles WHERE rolname = session_user"},
        headers={"authorization": f"Bearer {database['broker_token']}"},
    )
    assert answer.json()["rows"] == [[False]]
    for forbidden in ("SET ROLE postgres", "SET SESSION AUTHORIZATION postgres", "SELECT pg_read_file('/etc/passwd')"):
        with pytest.raises(BadRequestError, match="permission denied"):
            client.databases.query(one, forbidden)
    with pytest.raises(BadRequestError, match="read-only"):
        client.databases.query(one, "DELETE FROM orders", read_only=True)
    with pytest.raises(BadRequestError) as failed:
        client.databases.transaction(one, ["DELETE FROM orders", ("SELECT 1 / $1::int", [0])])
    assert failed.value.detail["statement"] == 1 and count(client, database) == 20000


def test_a_dump_is_restored(client: Client, database: Database) -> None:
    dump = io.BytesIO()
    client.databases.export(database["id"], dump)
    assert dump.getvalue().startswith(b"PGDMP") and len(dump.getvalue()) > 256 * 1024
    plain = io.BytesIO()
    client.databases.export(database["id"], plain, plain=True)
    assert b"COPY public.orders" in plain.getvalue() and b"complete" in plain.getvalue()[-300:]
    other = client.databases.create()
    try:
        client.databases.import_(other["id"], io.BytesIO(dump.getvalue()))
        assert count(client, other) == 20000
        with pytest.raises(BadRequestError, match="already exists"):
            client.databases.import_(other["id"], io.BytesIO(dump.getvalue()))
        client.databases.execute(other["id"], "DELETE FROM orders")
        for kept in (len(dump.getvalue()) // 2, len(dump.getvalue()) - 100, 200):
            with pytest.raises(BadRequestError, match="pg_restore: error"):
                client.databases.import_(other["id"], io.BytesIO(dump.getvalue()[:kept]), clean=True)
            assert count(client, other) == 0
        client.databases.import_(other["id"], io.BytesIO(dump.getvalue()), clean=True)
        assert count(client, other) == 20000
    finally:
        client.databases.delete(other["id"])
    for wrong in (b"", b"PGDM", b"SELECT 1;\n"):
        with pytest.raises(BadRequestError, match="custom format"):
            client.databases.import_(database["id"], io.BytesIO(wrong))
    with pytest.raises(BadRequestError, match="does not exist"):
        client.databases.export(database["id"], io.BytesIO(), database="x' user=postgres")
    with pytest.raises(NotFoundError):
        client.databases.export("0" * 36, io.BytesIO())


def sessions(client: Client, database: Database) -> Any:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('pg_dump', 'pg_restore')"
    return client.databases.query(database["id"], sql)["rows"][0][0]


class Leaving(io.BytesIO):
    """A file whose reader leaves in the middle."""

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        if not piece:
            raise KeyboardInterrupt
        return piece


def test_clients_that_leave(client: Client, database: Database) -> None:
    dump = io.BytesIO()
    client.databases.export(database["id"], dump)
    client.databases.execute(database["id"], "CREATE DATABASE elsewhere")
    with pytest.raises(KeyboardInterrupt):
        client.databases.import_(database["id"], Leaving(dump.getvalue()[:-200]), database="elsewhere")
    eventually(lambda: sessions(client, database) == 0, 30, "the import has ended")
    found = client.databases.query(database["id"], "SELECT to_regclass('orders')::text", database="elsewhere")
    assert found["rows"] == [[None]]
    client.databases.execute(
        database["id"],
        "INSERT INTO orders SELECT g, '[1,2]', repeat(md5(g::text), 40) FROM generate_series(20001, 40000) g",
    )
    url = f"{client.api_url}/v1/databases/{database['id']}/export?format=plain"
    with httpx.stream("GET", url, headers={"authorization": f"Bearer {client.transport.settings.api_key}"}) as response:
        next(response.iter_bytes())
    eventually(lambda: sessions(client, database) == 0, 30, "the export has ended")


def test_a_dump_that_breaks_off_is_noticed(client: Client, database: Database) -> None:
    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            if not self.tell():
                stop = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pg_dump'"
                assert client.databases.query(database["id"], stop)["rows"] == [[True]]
            return super().write(data)

    with pytest.raises(ConnectionError):
        client.databases.export(database["id"], Slow(), plain=True)


def test_a_copy_is_reset_to_its_source(client: Client, database: Database) -> None:
    copy = client.databases.clone(database["id"])
    try:
        client.databases.execute(copy["id"], "DROP TABLE orders")
        client.databases.execute(database["id"], "CREATE TABLE later (x int)")
        renewed = client.databases.reset(copy["id"])
        assert (renewed["id"], renewed["password"]) == (copy["id"], copy["password"])
        assert count(client, copy) == count(client, database) and count(client, copy, "later") == 0
    finally:
        client.databases.delete(copy["id"])


def test_its_disk_grows_as_it_is_written_to(client: Client, database: Database) -> None:
    one, gib, written, stop = database["id"], 1 << 30, list[int](), threading.Event()
    assert database["disk_gb"] == 10 and client.databases.stats(one)["disk_size_bytes"] < 10 * gib
    client.databases.execute(one, "CREATE TABLE load (what text)")

    def write() -> None:
        while not stop.is_set():
            sql = "INSERT INTO load SELECT repeat(md5(g::text), 20) FROM generate_series(1, 500) g"
            written.append(client.databases.execute(one, sql))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        eventually(lambda: written, 30, "it is written to")
        assert client.databases.update(one, disk_gb=12)["disk_gb"] == 12
        seen = len(written)
        eventually(lambda: len(written) > seen, 30, "it is still written to")
    finally:
        stop.set()
        thread.join(60)
    assert count(client, database, "load") == sum(written)
    assert 11 * gib < client.databases.stats(one)["disk_size_bytes"] < 12 * gib
    assert client.databases.update(one, disk_gb=12)["disk_gb"] == 12, "again is fine"
    with pytest.raises(BadRequestError, match="12 GiB") as smaller:
        client.databases.update(one, disk_gb=11)
    assert smaller.value.field == "disk_gb"
    copy = client.databases.clone(one)
    try:
        assert copy["disk_gb"] == 12 and client.databases.stats(copy["id"])["disk_size_bytes"] > 11 * gib
        assert client.databases.update(copy["id"], disk_gb=13)["disk_gb"] == 13
        assert client.databases.stats(copy["id"])["disk_size_bytes"] > 12 * gib
        assert client.databases.get(one)["disk_gb"] == 12
    finally:
        client.databases.delete(copy["id"])


@pytest.mark.slow
def test_an_import_is_undone_when_the_server_is_killed(
    place: Installation, served: tuple[Server, Client], database: Database
) -> None:
    """The last test here: the server is gone afterwards."""
    (server, client), killed = served, threading.Event()
    client.databases.execute(database["id"], "CREATE DATABASE undone")
    dump = io.BytesIO()
    client.databases.export(database["id"], dump)

    class Waiting(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            piece = super().read(size)
            if not piece:
                assert killed.wait(60)
            return piece

    def load() -> None:
        with suppress(ConnectionError, ServerError):
            client.databases.import_(database["id"], Waiting(dump.getvalue()[:-300]), database="undone")

    thread = threading.Thread(target=load)
    thread.start()
    try:
        eventually(lambda: sessions(client, database) == 1, 30, "the import has begun")
        server.kill()
    finally:
        killed.set()
        thread.join(60)
    with serving(place) as (_, again):
        again.databases.wait_until_ready(database["id"], timeout=60)
        eventually(lambda: sessions(again, database) == 0, 30, "the import has ended")
        found = again.databases.query(database["id"], "SELECT to_regclass('orders')::text", database="undone")
        assert found["rows"] == [[None]]
