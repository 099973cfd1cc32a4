"""``pandastack bench database``, ``functions`` and ``runners``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack import config
from pandastack.cli.output import note
from pandastack.cli.sandbox import logs
from pandastack.cli.server.bench_report import Count, DataDir, Json, TemplateName, api_of, report, server_of
from pandastack.errors import BadRequestError

if TYPE_CHECKING:
    from pandastack.bench.report import Row

MOST_MB = 9000
"""A database of the smallest size has a disk of 10 GiB."""


def database(
    n: Count = 10,
    sizes: Annotated[
        str, typer.Option(help="MB of data in databases that sleep and are branched, with commas.")
    ] = "10",
    data_dir: DataDir = None,
    json: Json = None,
) -> None:
    """Databases and copies of them, wakes, branches, and pgbench. Needs a running server, psql and pgbench."""
    import anyio

    if not all(each.isdecimal() and 0 < int(each) <= MOST_MB for each in sizes.split(",")):
        raise BadRequestError(f"--sizes: whole numbers up to {MOST_MB}, with commas, not {sizes[:40]!r}", field="sizes")
    chosen = tuple(map(int, sizes.split(",")))
    report(*anyio.run(_database, config.data_dir(data_dir), n, chosen), json)


def runners(n: Count = 10, template: TemplateName = "base", data_dir: DataDir = None, json: Json = None) -> None:
    """CI jobs until their first output, against fresh sandboxes that install first. Needs a running server."""
    import anyio

    report(*anyio.run(_runners, config.data_dir(data_dir), template, n), json)


def functions(n: Count = 10, data_dir: DataDir = None, json: Json = None) -> None:
    """Deploys and calls of functions, in turns with bare restores. Needs a running server."""
    import anyio

    report(*anyio.run(_functions, config.data_dir(data_dir), n), json)


async def _database(data: Path, n: int, sizes: tuple[int, ...]) -> tuple[dict[str, object], list[Row]]:
    import anyio.to_thread

    from pandastack.bench.database import TEMPLATE, check, measure, rows
    from pandastack.bench.database_rates import measure_rates, rate_rows
    from pandastack.bench.database_ways import Ground, measure_size, size_rows
    from pandastack.bench.raw_port import raw_ports
    from pandastack.bench.subject import open_floor
    from pandastack.engine.layout import Layout
    from pandastack.gateway.options import Options

    check()
    logs.configure("warning")
    layout = Layout(data, config.cache_dir())
    options = Options(directory=str(layout.gateway), data=str(data))
    api = api_of(data, TEMPLATE)
    async with open_floor(layout, TEMPLATE) as (floor, machine):
        found = rows(await anyio.to_thread.run_sync(measure, api, floor, n, note))
        asleep = floor.work.parent / "asleep"
    with raw_ports(options.engine) as ports:
        ground = Ground(api, ports, asleep, note)
        for mb in sizes:
            found += size_rows(mb, await anyio.to_thread.run_sync(measure_size, ground, mb, n))
        found += rate_rows(await anyio.to_thread.run_sync(measure_rates, api, ports, n, note))
    return machine, found


async def _runners(data: Path, template: str, n: int) -> tuple[dict[str, object], list[Row]]:
    import anyio.to_thread

    from pandastack import Client
    from pandastack.bench.runners import measure, rows
    from pandastack.bench.subject import open_floor
    from pandastack.engine.layout import Layout

    logs.configure("warning")
    with Client(*server_of(data), timeout=120) as client:
        async with open_floor(Layout(data, config.cache_dir()), template) as (floor, machine):
            samples = await anyio.to_thread.run_sync(measure, client, template, floor, n, note)
    return machine, rows(samples)


async def _functions(data: Path, n: int) -> tuple[dict[str, object], list[Row]]:
    from pandastack.bench.functions import TEMPLATE, bench
    from pandastack.engine.layout import Layout

    logs.configure("warning")
    return await bench(Layout(data, config.cache_dir()), api_of(data, TEMPLATE), n, note)
