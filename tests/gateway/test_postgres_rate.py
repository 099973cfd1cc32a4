"""What the PostgreSQL door costs: pgbench through it, and through a tunnel without it, in turns."""

from __future__ import annotations

import os
import re
import statistics
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from pandastack.bench.raw_port import raw_ports
from pandastack.cli.server.certificates import Certificates
from pandastack.cli.server.gateway import open_gateway
from pandastack.gateway.options import Options
from tests.gateway.postgres_clients import DATABASE, HOST, PASSWORD, USER
from tests.gateway.world import SANDBOX, World

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(300)]

ROUNDS, SECONDS, CLIENTS = 20, 1, 8


async def pgbench(where: str, *more: str) -> str:
    where = f"hostaddr=127.0.0.1 user={USER} dbname={USER} {where}"
    done = await anyio.run_process(["pgbench", *more, where], env=os.environ | {"PGPASSWORD": PASSWORD})
    return done.stdout.decode()


async def rate(where: str) -> float:
    """Transactions a second, without the time to connect."""
    found = re.search(
        r"tps = ([0-9.]+)", await pgbench(where, "-nSM", "simple", "-c", str(CLIENTS), "-T", str(SECONDS))
    )
    assert found is not None
    return float(found[1])


async def test_nine_tenths_of_the_raw_tunnel(tmp_path: Path, postgres_port: int) -> None:
    options = Options(directory=str(tmp_path / "run"), data=str(tmp_path), http_port=None, postgres_port=0)
    world = World(databases={DATABASE: postgres_port})
    control = Certificates(options, tmp_path).serve_beside(world.control_app())
    rates: dict[str, list[float]] = defaultdict(list)
    stack = ExitStack()
    async with open_gateway(options, world.engine_app(), control) as gateway:
        ports = stack.enter_context(raw_ports(options.engine))
        tunnel = f"port={await anyio.to_thread.run_sync(ports.open, SANDBOX, postgres_port)} sslmode=disable"
        door = f"port={gateway.ports['postgres']} host={HOST} sslmode=require"
        await pgbench(door, "-iq")
        for number in range(ROUNDS):
            for where in (door, tunnel) if number % 2 else (tunnel, door):
                rates[where].append(await rate(where))
        stack.close()
    await world.close()
    ratios = [one / two for one, two in zip(rates[door], rates[tunnel], strict=True)]
    print("door", [round(each) for each in rates[door]], "tunnel", [round(each) for each in rates[tunnel]])
    print("ratios", [round(each, 2) for each in ratios])
    assert statistics.median(ratios) >= 0.9
