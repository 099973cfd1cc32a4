"""What all of ``pandastack bench`` shares: options, the running server, the table of results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack.cli.output import print_table
from pandastack.errors import PandastackError

if TYPE_CHECKING:
    from pandastack.bench.api import Api
    from pandastack.bench.report import Row

Count = Annotated[int, typer.Option("-n", min=5, help="How often each operation is measured.")]
TemplateName = Annotated[str, typer.Option("--template", help="What the sandboxes are created from.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The running server's data directory.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the report to this file.")]


def report(machine: dict[str, object], rows: list[Row], json: Path | None, against: str = "× FLOOR") -> None:
    from pandastack.bench.report import to_json

    if json is not None:
        json.write_text(to_json(machine, rows) + "\n")
    print_table(("NAME", "UNIT", "N", "P50", "P90", "P99", "MIN", "MAX", against), [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[object, ...]:
    figures = (f"{value:.1f}" for value in (row.p50, row.p90, row.p99, row.min, row.max))
    return row.name, row.unit, row.n, *figures, "" if row.ratio is None else f"{row.ratio:.2f}"


def api_of(data: Path, template: str) -> Api:
    from pandastack.bench.api import Api

    return Api(*server_of(data), template)


def server_of(data: Path) -> tuple[str, str]:
    """URL and token of the data directory's server."""
    from pandastack.cli import credentials
    from pandastack.cli.server import daemon

    server, token = daemon.find(data), credentials.first_token(data)
    if server is None or token is None:
        raise PandastackError(f"no server is running for {data}", hint="start one: pandastack up --detach")
    return server.url, token
