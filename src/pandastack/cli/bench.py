"""``pandastack bench``: how fast this host is, held against the bare VMM on the same host in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack import config
from pandastack.cli import logs
from pandastack.cli.output import note, print_table
from pandastack.errors import PandastackError

if TYPE_CHECKING:
    from pandastack.bench import exec as commands
    from pandastack.bench.create import Samples
    from pandastack.bench.floor import Floor
    from pandastack.bench.report import Row

group = typer.Typer(no_args_is_help=True, help="Measure this host.", rich_markup_mode=None)

COLD_BOOTS = 5


@group.callback()
def bench() -> None:
    """Measure this host."""  # a callback keeps `create` a subcommand while it is the only one


@group.command()
def create(
    n: Annotated[int, typer.Option("-n", min=5, help="How many sandboxes to create in turn.")] = 30,
    template: Annotated[str, typer.Option(help="What they are created from.")] = "base",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The running server's data directory.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the report to this file.")] = None,
) -> None:
    """Create, first command, warm command, delete, throughput and memory. Needs a running server on this host."""
    import anyio

    from pandastack.bench.report import to_json

    machine, rows = anyio.run(_create, config.data_dir(data_dir), template, n)
    if json is not None:
        json.write_text(to_json(machine, rows) + "\n")
    print_table(("NAME", "UNIT", "N", "P50", "P90", "P99", "MIN", "MAX", "× FLOOR"), [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[object, ...]:
    figures = (f"{value:.1f}" for value in (row.p50, row.p90, row.p99, row.min, row.max))
    return row.name, row.unit, row.n, *figures, "" if row.ratio is None else f"{row.ratio:.2f}"


async def _create(data: Path, template: str, n: int) -> tuple[dict[str, object], list[Row]]:
    import anyio.to_thread

    from pandastack.bench.create import rows
    from pandastack.bench.subject import cold_boots, open_floor
    from pandastack.cli.build_progress import TerminalProgress
    from pandastack.engine.install import shipped_recipes
    from pandastack.engine.layout import Layout
    from pandastack.engine.workshop import open_workshop

    logs.configure("warning")
    layout = Layout(data, config.cache_dir())
    async with open_floor(layout, template) as (floor, machine):
        samples = await anyio.to_thread.run_sync(_measure, data, floor, template, n)
        note("cold boots")
        workshop = await open_workshop(layout, shipped_recipes(), TerminalProgress())
        image, memory_mb = floor.plan.disks[0].path, floor.plan.memory_mb
        samples.cold_boot = await cold_boots(workshop, image, memory_mb, COLD_BOOTS)
    return machine, rows(samples)


def _measure(data: Path, floor: Floor, template: str, n: int) -> Samples:
    from pandastack.bench.create import Api, measure
    from pandastack.cli import credentials, daemon

    server, token = daemon.find(data), credentials.first_token(data)
    if server is None or token is None:
        raise PandastackError(f"no server runs for {data}", hint="start one: pandastack up --detach")
    note(f"{n} bare restores and {n} creates in turn, then commands, throughput and memory")
    return measure(Api(server.url, token, template), floor, n)


@group.command("exec")
def exec_(
    n: Annotated[int, typer.Option("-n", min=8, help="How many commands in turn.")] = 40,
    template: Annotated[str, typer.Option(help="What the sandboxes are created from.")] = "base",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The running server's data directory.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the report to this file.")] = None,
) -> None:
    """Commands, their output, files and keys, against the guest's own time and the bare channel."""
    import anyio

    from pandastack.bench.report import to_json

    machine, rows = anyio.run(_exec, config.data_dir(data_dir), template, n)
    if json is not None:
        json.write_text(to_json(machine, rows) + "\n")
    print_table(("NAME", "UNIT", "N", "P50", "P90", "P99", "MIN", "MAX", "× RAW"), [_cells(row) for row in rows])


async def _exec(data: Path, template: str, n: int) -> tuple[dict[str, object], list[Row]]:
    import anyio.to_thread

    from pandastack.bench.exec import rows
    from pandastack.bench.subject import open_floor
    from pandastack.engine.layout import Layout

    logs.configure("warning")
    async with open_floor(Layout(data, config.cache_dir()), template) as (floor, machine):
        samples = await anyio.to_thread.run_sync(_measure_exec, data, floor, template, n)
    return machine, rows(samples)


def _measure_exec(data: Path, floor: Floor, template: str, n: int) -> commands.Samples:
    from pandastack.bench.create import Api
    from pandastack.bench.exec import Wire, measure
    from pandastack.cli import credentials, daemon

    server, token = daemon.find(data), credentials.first_token(data)
    if server is None or token is None:
        raise PandastackError(f"no server runs for {data}", hint="start one: pandastack up --detach")
    note(f"{n} commands, transfers in turns with the bare channel, keys, and 50 commands at once")
    return measure(Api(server.url, token, template), Wire(server.url, token), floor, n)
