"""Databases that live through accidents: a server that can be started again, and clients that write all the while."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from pandastack import Client
from pandastack.errors import PandastackError
from tests.support.installation import Installation, Server, eventually, serving
from tests.support.machines import kill_machines

Database = Mapping[str, Any]

TABLE = "CREATE TABLE kept (writer int, number int, payload text, PRIMARY KEY (writer, number))"
_INSERT = "INSERT INTO kept VALUES (%(writer)s, %(number)s, repeat(md5(%(number)s::text), 20))"
_SINCE = "WHERE writer = ANY(%s) AND number > %s"
_TORN = f"SELECT count(*) FROM kept {_SINCE} AND payload <> repeat(md5(number::text), 20)"
_PAUSE = 0.05
_BACK_SECONDS = 120.0


@dataclass
class DatabaseWorld:
    """A server that can be killed and started again, with its client."""

    place: Installation
    stack: ExitStack = field(default_factory=ExitStack)
    server: Server = None  # type: ignore[assignment]
    client: Client = None  # type: ignore[assignment]

    def start(self, **settings: str) -> None:
        """End the server that runs, if one does, and start one with further settings."""
        self.stack.close()
        self.server, self.client = self.stack.enter_context(serving(self.place, **settings))

    def find(self, database: Database) -> Database:
        """The database as it is now, once the gateway has said where it answers: another one may have another port."""

        def known() -> Database | None:
            found = self.client.databases.get(database["id"])
            return found if "connection_url" in found else None

        return eventually(known, 30, "the gateway answers for it")  # type: ignore[no-any-return]

    def kill_machine(self, database: Database) -> None:
        """Kill the machine of a database, if it has one."""
        with suppress(PandastackError, ProcessLookupError):
            os.kill(self.client.sandboxes.get(database["id"]).metrics()["pid"], signal.SIGKILL)

    def reboot(self) -> None:
        """End every process, as a host does whose power is cut; its disk is not touched."""
        self.server.kill()
        for pid in gateways(self.place):
            os.kill(pid, signal.SIGKILL)
        kill_machines(self.place)


def gateways(place: Installation) -> list[int]:
    """The gateway processes of an installation."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            words = (process / "cmdline").read_bytes() if process.name.isdigit() else b""
            if b"pandastack.gateway" in words and str(place.data).encode() in words:
                found.append(int(process.name))
    return found


def parameters(database: Database, **more: Any) -> dict[str, Any]:
    """Those of libpq. The gateway is on this host, whatever the name of the database resolves to."""
    return {
        "host": database["host"],
        "hostaddr": "127.0.0.1",
        "port": database["port"],
        "user": database["username"],
        "dbname": database["database"],
        "password": database["password"],
        "sslmode": "require",
        "connect_timeout": 60,
        **more,
    }


@contextmanager
def connected(database: Database, **more: Any) -> Iterator[psycopg.Connection[Any]]:
    """A session, in which each statement is a transaction."""
    with psycopg.connect(**parameters(database, **more), autocommit=True) as connection:
        yield connection


class Writer(threading.Thread):
    """A client that writes a row in each transaction, and knows which of them the database has acknowledged.

    It connects again whenever its connection ends.
    """

    def __init__(self, number: int, database: Database) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.database = database
        """Where to connect: another gateway may have another port."""
        self.asked = 0
        self.acknowledged: set[int] = set()
        self.failure: BaseException | None = None
        self._ended = threading.Event()
        self._written = threading.Condition()

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                with suppress(psycopg.OperationalError), connected(self.database) as connection:
                    self._write(connection)
                self._ended.wait(_PAUSE)
        except Exception as error:
            self.failure = error

    def _write(self, connection: psycopg.Connection[Any]) -> None:
        while not self._ended.is_set():
            self.asked += 1
            connection.execute(_INSERT, {"writer": self.number, "number": self.asked})
            with self._written:
                self.acknowledged.add(self.asked)
                self._written.notify_all()

    def wait_for(self, more: int) -> None:
        """Return once so many more rows are acknowledged."""
        with self._written:
            wanted = len(self.acknowledged) + more
            done = self._written.wait_for(lambda: len(self.acknowledged) >= wanted, _BACK_SECONDS)
        assert done and self.failure is None, f"writer {self.number}: no row within {_BACK_SECONDS:g} s, {self.failure}"

    def end(self) -> None:
        """Stop, once the transaction that runs has ended."""
        self._ended.set()
        self.join(_BACK_SECONDS)
        assert not self.is_alive() and self.failure is None


@dataclass
class Writers:
    """Several of them on one database, which has the table."""

    each: list[Writer]
    checked: int = 0
    """Up to which number the last check has found the rows of every writer."""

    def moved(self, database: Database) -> None:
        """Have them connect where the database is now."""
        for writer in self.each:
            writer.database = database

    def wait_for(self, more: int) -> None:
        """Return once each has got so many more acknowledgements."""
        for writer in self.each:
            writer.wait_for(more)

    def check(self, database: Database, *, newer: bool = False) -> int:
        """Compare the table with what was acknowledged until now; returns how many rows that are. ``newer``: only rows
        that the last check has not found. A row that is lost stays so: a later check of all would miss it, too.
        """
        since = self.checked if newer else 0
        acknowledged = {(each.number, row) for each in self.each for row in set(each.acknowledged)}
        wanted = {(writer, row) for writer, row in acknowledged if row > since}
        with connected(database) as connection:
            place = ([each.number for each in self.each], since)
            found = connection.execute(f"SELECT writer, number FROM kept {_SINCE}", place)
            rows = {(int(writer), int(row)) for writer, row in found}
            (torn,) = connection.execute(_TORN, place).fetchone() or (None,)
        asked = {each.number: each.asked for each in self.each}
        assert torn == 0
        assert wanted - rows == set(), "rows are lost that were acknowledged"
        assert all(row <= asked[writer] for writer, row in rows), "rows are there that nobody has written"
        self.checked = min(max((row for writer, row in acknowledged if writer == each), default=0) for each in asked)
        return len(acknowledged)


@contextmanager
def writing(database: Database, count: int = 3) -> Iterator[Writers]:
    """Clients that write inside the block."""
    with connected(database) as connection:
        connection.execute(TABLE)
    writers = Writers([Writer(number, database) for number in range(count)])
    for each in writers.each:
        each.start()
    try:
        yield writers
    finally:
        for each in writers.each:
            each.end()


def index_agrees(database: Database) -> bool:
    """Whether the index of the table has every row, and no other."""
    with connected(database) as connection:
        found = []
        for forbidden in (
            "enable_indexscan = off, enable_bitmapscan = off, enable_indexonlyscan = off",
            "enable_seqscan = off",
        ):
            connection.execute("; ".join(f"SET {each}" for each in ["enable_indexscan = on", *forbidden.split(", ")]))
            found.append(
                connection.execute("SELECT count(*), sum(number::int8) FROM kept WHERE writer >= 0").fetchone()
            )
    return found[0] == found[1]


def after(seconds: float) -> None:
    """Let a moment pass that nothing announces: what happens next is to happen at any moment."""
    time.sleep(seconds)
