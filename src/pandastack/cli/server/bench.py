"""``pandastack bench``: how fast this host is, compared with the bare VMM on the same host in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack import config
from pandastack.cli.output import note, print_table
from pandastack.cli.sandbox import logs
from pandastack.errors import PandastackError

if TYPE_CHECKING:
    from pandastack.bench.api import Api
    from pandastack.bench.report import Row

group = typer.Typer(no_args_is_help=True, help="Measure this host.", rich_markup_mode=None)

COLD_BOOTS = 5


Count = Annotated[int, typer.Option("-n", min=5, help="How often each operation is measured.")]
TemplateName = Annotated[str, typer.Option("--template", help="What the sandboxes are created from.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The running server's data directory.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the report to this file.")]


@group.command()
def create(n: Count = 30, template: TemplateName = "base", data_dir: DataDir = None, json: Json = None) -> None:
    """Create, first command, warm command, delete, throughput and memory. Needs a running server on this host."""
    import anyio

    _report(*anyio.run(_create, config.data_dir(data_dir), template, n), json)


@group.command()
def lifecycle(
    n: Count = 20,
    template: TemplateName = "base",
    large: Annotated[str, typer.Option(help="A template with 2 GiB of memory or more.")] = "code-interpreter",
    data_dir: DataDir = None,
    json: Json = None,
) -> None:
    """Pause, hibernate, wake, snapshot, fork and fork-tree. Needs a running server on this host."""
    import anyio

    _report(*anyio.run(_lifecycle, config.data_dir(data_dir), template, large, n), json)


@group.command("exec")
def exec_(
    n: Annotated[int, typer.Option("-n", min=8, help="How many commands in turn.")] = 40,
    template: TemplateName = "base",
    data_dir: DataDir = None,
    json: Json = None,
) -> None:
    """Commands, their output, files and keys, against the guest's own time and the bare channel."""
    import anyio

    _report(*anyio.run(_exec, config.data_dir(data_dir), template, n), json, against="× RAW")


@group.command()
def tti(
    count: Annotated[int, typer.Option("-n", min=2, help="How many sandboxes, first in turn, then at once.")] = 100,
    template: TemplateName = "base",
    image: Annotated[str, typer.Option(help="A local Docker image to run the same command in.")] = "debian:bookworm",
    data_dir: DataDir = None,
    json: Json = None,
) -> None:
    """From a create to the answer of a first command: one after another, and all at once."""
    import anyio

    _report(*anyio.run(_tti, config.data_dir(data_dir), template, count, image), json, against="× BASE")


def _report(machine: dict[str, object], rows: list[Row], json: Path | None, against: str = "× FLOOR") -> None:
    from pandastack.bench.report import to_json

    if json is not None:
        json.write_text(to_json(machine, rows) + "\n")
    print_table(("NAME", "UNIT", "N", "P50", "P90", "P99", "MIN", "MAX", against), [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[object, ...]:
    figures = (f"{value:.1f}" for value in (row.p50, row.p90, row.p99, row.min, row.max))
    return row.name, row.unit, row.n, *figures, "" if row.ratio is None else f"{row.ratio:.2f}"


async def _create(data: Path, template: str, n: int) -> tuple[dict[str, object], list[Row]]:
    import anyio.to_thread

    from pandastack.bench.create import measure, rows
    from pandastack.bench.subject import cold_boots, open_floor
    from pandastack.cli.template.progress import TerminalProgress
    from pandastack.engine.build.host import open_build_host
    from pandastack.engine.build.install import shipped_recipes
    from pandastack.engine.layout import Layout

    logs.configure("warning")
    layout = Layout(data, config.cache_dir())
    async with open_floor(layout, template) as (floor, machine):
        note(f"{n} bare restores and {n} creates in turn, then commands, throughput and memory")
        samples = await anyio.to_thread.run_sync(measure, _api(data, template), floor, n)
        note("cold boots")
        host = await open_build_host(layout, shipped_recipes(), TerminalProgress())
        image, memory_mb = floor.plan.disks[0].path, floor.plan.memory_mb
        samples.cold_boot = await cold_boots(host, image, memory_mb, COLD_BOOTS)
    return machine, rows(samples)


async def _lifecycle(data: Path, template: str, large: str, n: int) -> tuple[dict[str, object], list[Row]]:
    import anyio.to_thread

    from pandastack.bench.lifecycle import Subject, measure, rows
    from pandastack.bench.subject import open_floor
    from pandastack.engine.layout import Layout

    logs.configure("warning")
    async with open_floor(Layout(data, config.cache_dir()), template) as (floor, machine):
        subject = Subject(_api(data, template), floor, floor.work.parent, large)
        samples = await anyio.to_thread.run_sync(measure, subject, n, note)
    return machine, rows(samples)


async def _exec(data: Path, template: str, n: int) -> tuple[dict[str, object], list[Row]]:
    import anyio.to_thread

    from pandastack.bench.exec import Wire, measure, rows
    from pandastack.bench.subject import open_floor
    from pandastack.engine.layout import Layout

    logs.configure("warning")
    url, token = _server(data)
    async with open_floor(Layout(data, config.cache_dir()), template) as (floor, machine):
        note(f"{n} commands, transfers in turns with the bare channel, keys, and 50 commands at once")
        samples = await anyio.to_thread.run_sync(measure, _api(data, template), Wire(url, token), floor, n)
    return machine, rows(samples)


async def _tti(data: Path, template: str, count: int, image: str) -> tuple[dict[str, object], list[Row]]:
    import anyio.to_thread

    from pandastack.bench.subject import open_floor
    from pandastack.bench.tti import measure, rows
    from pandastack.engine.layout import Layout

    logs.configure("warning")
    async with open_floor(Layout(data, config.cache_dir()), template) as (floor, machine):
        samples = await anyio.to_thread.run_sync(measure, _api(data, template), floor, count, image, note)
    return machine, rows(samples, count)


def _api(data: Path, template: str) -> Api:
    from pandastack.bench.api import Api

    return Api(*_server(data), template)


def _server(data: Path) -> tuple[str, str]:
    """URL and token of the data directory's server."""
    from pandastack.cli import credentials
    from pandastack.cli.server import daemon

    server, token = daemon.find(data), credentials.first_token(data)
    if server is None or token is None:
        raise PandastackError(f"no server is running for {data}", hint="start one: pandastack up --detach")
    return server.url, token
