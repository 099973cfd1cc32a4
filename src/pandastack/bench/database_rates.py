"""``bench database``: pgbench through the gateway, over TLS, against a raw tunnel, and against a server of the host."""

from __future__ import annotations

import os
import pwd
import re
import socket
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

from pandastack.bench.api import Api
from pandastack.bench.database import environment_of, ready
from pandastack.bench.raw_port import RawPorts
from pandastack.bench.report import Row, summarize
from pandastack.errors import PandastackError

CLIENTS, SCALE, SECONDS = 8, 8, 3
KINDS = {"tpcb": "tpcb-like", "select": "select-only"}
PORT = 5432

Rates = dict[str, list[float]]
"""Transactions a second by the row's name."""


def measure_rates(api: Api, ports: RawPorts, rounds: int, say: Callable[[str], None]) -> Rates:
    """``rounds`` of each kind by each way, in turns, to one database. Without a server on the host its rows are left
    out."""
    made: list[str] = []
    try:
        database = ready(api, made, "/databases")
        api.patch(f"/databases/{database['id']}", {"always_on": True})  # tunnels do not wake it
        api.rest()
        return _rates(database, ports, rounds, say)
    finally:
        for each in made:
            api.delete(each, "/databases")


def _rates(database: Mapping[str, Any], ports: RawPorts, rounds: int, say: Callable[[str], None]) -> Rates:
    tunnel = {**database, "port": ports.open(database["id"], PORT), "sslmode": "disable"}
    rates: Rates = defaultdict(list)
    with _host_server() as host:
        ways: dict[str, Mapping[str, Any]] = {"gateway": database, "tunnel": tunnel}
        for each in (tunnel, host):
            if each is not None:
                say(f"tables for pgbench, scale {SCALE}")
                pgbench(each, "-iq", "-s", str(SCALE))
        if host is not None:
            ways["host"] = host
        for number in range(rounds):
            say(f"pgbench, {CLIENTS} clients, round {number + 1} of {rounds}")
            for kind, script in KINDS.items():
                for way in sorted(ways, reverse=bool(number % 2)):
                    rates[f"{kind}_{way}"].append(_rate(ways[way], script))
    return rates


def rate_rows(rates: Rates) -> list[Row]:
    """The report's rows; the gateway is compared with the raw tunnel, and so is the host's own server."""
    return [
        summarize(f"{name}_per_s", "1/s", values, None if name.endswith("_tunnel") else rates[f"{kind}_tunnel"])
        for name, values in rates.items()
        for kind in [name.partition("_")[0]]
    ]


def _rate(where: Mapping[str, Any], script: str) -> float:
    printed = pgbench(where, "-n", "-b", script, "-c", str(CLIENTS), "-j", "2", "-T", str(SECONDS))
    found = re.search(r"tps = ([0-9.]+)", printed)
    if found is None:
        raise PandastackError(f"pgbench reports no rate: {printed[-300:]}")
    return float(found[1])


def pgbench(where: Mapping[str, Any], *arguments: str) -> str:
    """What it prints. Raises :class:`PandastackError` when it fails."""
    done = subprocess.run(
        ["pgbench", *arguments], env=environment_of(where), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PandastackError(f"pgbench failed: {done.stderr.strip()[-500:]}")
    return done.stdout


@contextmanager
def _host_server() -> Iterator[dict[str, Any] | None]:
    """A server of the host's own PostgreSQL, with its defaults; None where there is none, or no user for it."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(which("initdb") or "/none").parent]
    user = "postgres" if os.geteuid() == 0 else None
    known = user is None or any(each.pw_name == user for each in pwd.getpwall())
    if not known or not (programs[-1] / "initdb").exists():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="pandastack-bench-") as name, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        if user is not None:
            os.chown(name, pwd.getpwnam(user).pw_uid, -1)

        def run(program: str, *argv: str) -> None:
            command = [str(programs[-1] / program), "-D", f"{name}/data", *argv]
            subprocess.run(command, check=True, user=user, cwd=name, stdout=subprocess.DEVNULL)

        run("initdb", "-A", "trust", "-U", "bench")
        run("pg_ctl", "-l", f"{name}/log", "-o", f"-k {name} -h 127.0.0.1 -p {port}", "-w", "start")
        try:
            account = {"username": "bench", "database": "postgres", "password": ""}
            yield {"host": "localhost", "port": port, "sslmode": "disable", **account}
        finally:
            run("pg_ctl", "-m", "immediate", "-w", "stop")
