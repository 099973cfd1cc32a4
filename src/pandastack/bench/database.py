"""``bench database``: from the request for a database to its first answered query over TLS, copies, and queries.

Creates alternate with bare restores of the same template. The client is psql, a process for each query: its start is
part of every sample, and a row of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pandastack.bench.api import Api, timed
from pandastack.bench.floor import Floor
from pandastack.bench.report import Row, summarize
from pandastack.errors import PandastackError

TEMPLATE = "postgres"
SETTLE_SECONDS = 3.0
"""Seconds without requests before each create and copy: a machine that is made ahead is replaced in that time."""

READY_SECONDS = 120.0
QUERY_SECONDS = 600.0
"""One that makes much data takes long."""
_PAUSE = 0.005


@dataclass
class Samples:
    """Milliseconds."""

    floor: list[float] = field(default_factory=list)
    running: list[float] = field(default_factory=list)
    first_query: list[float] = field(default_factory=list)
    query: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    branch: list[float] = field(default_factory=list)
    branch_query: list[float] = field(default_factory=list)


def check() -> None:
    """Raise :class:`PandastackError` without psql."""
    if shutil.which("psql") is None:
        raise PandastackError("this bench needs the program psql", hint="apt install postgresql-client")


def measure(api: Api, floor: Floor, n: int, progress: Callable[[str], None]) -> Samples:
    """``n`` creates, each with a copy, in turns with the floor."""
    samples = Samples()
    floor.measure()  # the first restore reads the image from the disk
    for number in range(n):
        progress(f"database {number + 1} of {n}")
        samples.floor.append(floor.measure())
        time.sleep(SETTLE_SECONDS)
        _round(api, samples)
    return samples


def _round(api: Api, samples: Samples) -> None:
    made: list[str] = []
    try:
        with timed(samples.first_query):
            with timed(samples.running):
                database = ready(api, made, "/databases")
            query(database)
        with timed(samples.query):
            query(database)
        with timed(samples.client):
            subprocess.run(["psql", "--version"], stdout=subprocess.DEVNULL, check=True)
        time.sleep(SETTLE_SECONDS)
        with timed(samples.branch_query):
            with timed(samples.branch):
                branch = ready(api, made, f"/databases/{database['id']}/clone")
            query(branch)
    finally:
        for each in made:
            api.delete(each, "/databases")


def ready(api: Api, made: list[str], path: str) -> dict[str, Any]:
    """Make a database, and wait until it runs."""
    made.append(str(api.post(path, {"label": "bench"})["id"]))
    return ready_again(api, made[-1])


def ready_again(api: Api, identity: str) -> dict[str, Any]:
    """The database, once it runs."""
    database = api.get(f"/databases/{identity}")
    deadline = time.monotonic() + READY_SECONDS
    while database["status"] != "running" or "connection_url" not in database:
        if database["status"] == "failed" or time.monotonic() > deadline:
            raise PandastackError(f"database {database['id']} is {database['status']}: {database.get('error', '')}")
        time.sleep(_PAUSE)
        database = api.get(f"/databases/{database['id']}")
    return database


def query(database: Mapping[str, Any]) -> None:
    """One query in a session of its own. Raises :class:`PandastackError` for any other answer than the right one."""
    if run_sql(database, "SELECT 40 + 2") != "42\n":
        raise PandastackError("psql got another answer than 42")


def run_sql(database: Mapping[str, Any], sql: str) -> str:
    """What psql prints of it, in a session of its own. Raises :class:`PandastackError` when that fails."""
    argv = ["psql", "-XAtqv", "ON_ERROR_STOP=1", "-c", sql]
    done = subprocess.run(
        argv, env=environment_of(database), capture_output=True, text=True, timeout=QUERY_SECONDS, check=False
    )
    if done.returncode:
        raise PandastackError(f"psql got no answer: {done.stderr.strip()[-500:]}")
    return done.stdout


def environment_of(database: Mapping[str, Any]) -> dict[str, str]:
    """That of a client of libpq. It uses TLS, unless the database says another mode."""
    where = {"PGHOST": database["host"], "PGHOSTADDR": "127.0.0.1", "PGPORT": str(database["port"])}
    who = {"PGUSER": database["username"], "PGDATABASE": database["database"], "PGPASSWORD": database["password"]}
    return {**os.environ, **where, **who, "PGSSLMODE": database.get("sslmode", "require")}


def rows(samples: Samples) -> list[Row]:
    """The report's rows; what starts a machine is compared with the floor."""
    return [
        summarize("floor", "ms", samples.floor),
        summarize("database_running", "ms", samples.running, samples.floor),
        summarize("database_first_query", "ms", samples.first_query, samples.floor),
        summarize("database_query", "ms", samples.query),
        summarize("psql_start", "ms", samples.client),
        summarize("branch_running", "ms", samples.branch, samples.floor),
        summarize("branch_first_query", "ms", samples.branch_query, samples.floor),
    ]
