"""``bench database``: a sleeping database until its first query, and a branch, against the bare machine.

That is a sandbox of the same template with the same data, woken or forked by the sandbox's own request; its
query goes through a raw tunnel. Both take turns.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandastack.bench.api import Api, timed
from pandastack.bench.database import SETTLE_SECONDS, TEMPLATE, ready, ready_again, run_sql
from pandastack.bench.raw_port import RawPorts
from pandastack.bench.report import Row, summarize
from pandastack.errors import PandastackError
from pandastack.host.files import allocated_bytes
from pandastack.host.usage import private_bytes

PORT = 5432
PASSWORD = "bench"
ASLEEP_SECONDS = 60.0
"""How long a database may take to fall asleep: the server's own time for that is longer by default."""
_FILL = """INSERT INTO filled SELECT repeat('x', 8000) FROM generate_series(1, {rows})"""
_PAGES_PER_MB = 128
_FILL_MB = 256
_PAUSE = 0.05
BARE_SECONDS = 6 * 3600
"""The bare machine is not deleted meanwhile, although nobody asks it for minutes."""


@dataclass(frozen=True)
class Ground:
    """Where databases are measured: a server, raw tunnels into its machines, and the directory of its sleepers."""

    api: Api
    ports: RawPorts
    asleep: Path
    say: Callable[[str], None]


class Ways(defaultdict[str, list[float]]):
    """Samples by the row's name, without the size."""

    def __init__(self) -> None:
        super().__init__(list)


def measure_size(ground: Ground, mb: int, n: int) -> Ways:
    """``n`` wakes and branches of a database with ``mb`` MB of data, in turns with those of the bare machine."""
    ways, made = Ways(), list[str]()
    try:
        ground.say(f"{mb} MB of data, twice")
        database = ready(ground.api, made, "/databases")
        ground.api.rest()
        fill(database, mb)
        with _bare(ground, mb) as bare:
            for number in range(n):
                ground.say(f"a wake and a branch of {mb} MB, {number + 1} of {n}")
                _wakes(ground, database, bare, ways, first=number % 2)
                with _kept_awake(ground.api, database["id"]):
                    ways["awake_mb"].append(private_bytes(ground.api.pid(database["id"])) / 1e6)
                    _branches(ground, database, bare, ways)
    finally:
        for each in made:
            ground.api.delete(each, "/databases")
    return ways


def fill(database: dict[str, Any], mb: int) -> None:
    """Give a database a table of ``mb`` MB, which its machine has written to the disk."""
    run_sql(database, "CREATE UNLOGGED TABLE filled (payload text STORAGE PLAIN)")
    for begun in range(0, mb, _FILL_MB):
        run_sql(database, _FILL.format(rows=min(_FILL_MB, mb - begun) * _PAGES_PER_MB))
    run_sql(database, "CHECKPOINT")


@contextmanager
def _bare(ground: Ground, mb: int) -> Iterator[dict[str, Any]]:
    """An ordinary sandbox with the same data, addressed as psql needs it."""
    sandbox = ground.api.create(TEMPLATE, ttl_seconds=BARE_SECONDS)
    try:
        given = f"ALTER ROLE pandastack PASSWORD '{PASSWORD}'; GRANT pg_checkpoint TO pandastack"
        done = ground.api.execute(sandbox, f'psql -qXh /run/postgresql -U postgres -c "{given}"')
        if done["exit_code"]:
            raise PandastackError(f"the bare machine has no password: {done['stderr'][-200:]}")
        bare = _address(ground, sandbox)
        ground.api.rest()
        fill(bare, mb)
        yield bare
    finally:
        ground.api.delete(sandbox)


@contextmanager
def _kept_awake(api: Api, database: str) -> Iterator[None]:
    """A database that does not sleep inside the block."""
    api.patch(f"/databases/{database}", {"always_on": True})
    ready_again(api, database)
    yield
    api.patch(f"/databases/{database}", {"always_on": False})


def _address(ground: Ground, sandbox: str) -> dict[str, Any]:
    names = {"host": "localhost", "username": "pandastack", "database": "pandastack", "password": PASSWORD}
    return {**names, "id": sandbox, "port": ground.ports.open(sandbox, PORT), "sslmode": "disable"}


def _wakes(ground: Ground, database: dict[str, Any], bare: dict[str, Any], ways: Ways, *, first: int) -> None:
    """A query to each of both while it sleeps."""
    if not _sleeps(ground.api, database["id"]):
        if not ways["wake_first_query"]:
            ground.say("the database does not sleep: wakes are left out. PANDASTACK_IDLE_AFTER=5 has it sleep sooner")
        return
    ways["asleep_mb"].append(_pages(ground.asleep / database["id"]) / 1e6)
    ground.api.post(f"/sandboxes/{bare['id']}/hibernate")
    time.sleep(SETTLE_SECONDS)

    def through_the_gateway() -> None:
        with timed(ways["wake_first_query"]):
            run_sql(database, "SELECT 40 + 2")

    def bare_one() -> None:
        with timed(ways["bare_wake_first_query"]):
            ground.api.post(f"/sandboxes/{bare['id']}/wake")
            run_sql(bare, "SELECT 40 + 2")

    both = (through_the_gateway, bare_one)
    for each in both if first else both[::-1]:
        each()
    ways["wake_added"].append(ways["wake_first_query"][-1] - ways["bare_wake_first_query"][-1])


def _branches(ground: Ground, database: dict[str, Any], bare: dict[str, Any], ways: Ways) -> None:
    """A copy of each of both, until it has answered."""
    api, made = ground.api, list[str]()
    time.sleep(SETTLE_SECONDS)
    with timed(ways["branch_first_query"]):
        run_sql(ready(api, made, f"/databases/{database['id']}/clone"), "SELECT 40 + 2")
    api.delete(made[0], "/databases")
    ways["branch_pause"].append(_pause(api, database["id"]))
    time.sleep(SETTLE_SECONDS)
    with timed(ways["bare_fork_first_query"]):
        child = api.post(f"/sandboxes/{bare['id']}/fork")["sandbox"]["id"]
        run_sql(_address(ground, child), "SELECT 40 + 2")
    api.delete(child)
    ways["bare_fork_pause"].append(_pause(api, bare["id"]))
    ways["branch_added"].append(ways["branch_first_query"][-1] - ways["bare_fork_first_query"][-1])


def _pause(api: Api, sandbox: str) -> float:
    """How long the last fork has paused its parent."""
    events = api.get(f"/sandboxes/{sandbox}/events?tail=0")["events"]
    return float([each["payload"]["pause_ms"] for each in events if each["type"] == "fork.staged"][-1])


def _sleeps(api: Api, database: str) -> bool:
    deadline = time.monotonic() + ASLEEP_SECONDS
    while time.monotonic() < deadline:
        if api.get(f"/databases/{database}")["status"] == "hibernated":
            return True
        time.sleep(_PAUSE)
    return False


def _pages(directory: Path) -> int:
    """The bytes of memory that a sleeper has for itself: beside the template's image, on the disk."""
    return sum(allocated_bytes(each) for each in directory.glob("pages*"))


def size_rows(mb: int, ways: Ways) -> list[Row]:
    """The report's rows of one size: the way through the gateway is compared with the bare one."""
    size = f"{mb // 1000}gb" if mb >= 1000 else f"{mb}mb"
    against = {
        "wake_first_query": "bare_wake_first_query",
        "branch_first_query": "bare_fork_first_query",
        "branch_pause": "bare_fork_pause",
    }
    return [
        summarize(f"{name}_{size}", "MB" if name.endswith("_mb") else "ms", values, ways.get(against.get(name, "")))
        for name, values in sorted(ways.items())
        if values
    ]
