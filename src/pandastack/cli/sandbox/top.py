"""``pandastack top``: what the sandboxes take of the host, and why they are awake."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandastack.cli.connection import connect
from pandastack.cli.output import Json, print_json, print_table, size_of
from pandastack.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from pandastack.sdk import Client, Sandbox

_COLUMNS = ("ID", "TEMPLATE", "STATUS", "CPU %", "MEMORY", "UP", "AWAKE BECAUSE")


def top(
    watch: Annotated[
        float | None, typer.Option("--watch", metavar="SECONDS", min=0.5, help="Repeat until interrupted.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what running and paused sandboxes take, most CPU time first.

    CPU is the mean over a machine's life, in percent of one core.
    """
    with connect() as client:
        while True:
            rows = _rows(client)
            if json:
                print_json(rows)
            else:
                print_table(_COLUMNS, [_cells(row) for row in rows])
            if watch is None:
                return
            time.sleep(watch)


def _rows(client: Client) -> list[dict[str, Any]]:
    found = [_row(each) for each in client.sandboxes.list(status=["running", "paused"])]
    return sorted((row for row in found if row), key=lambda row: -row["host_cpu_percent"])


def _row(sandbox: Sandbox) -> dict[str, Any] | None:
    try:
        usage, lifecycle = sandbox.metrics(), sandbox.lifecycle()
    except (ConflictError, NotFoundError):  # it was hibernated or deleted meanwhile
        return None
    record = {"id": sandbox.id, "template": sandbox.template, "status": sandbox.status}
    return {**record, **usage, **{name: lifecycle[name] for name in ("in_use", "idle_seconds", "expires_at")}}


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    because = "in use" if row["in_use"] else f"used {row['idle_seconds']} s ago"
    up = f"{row['uptime_seconds']:.0f} s"
    cpu = f"{row['host_cpu_percent']:.1f}"
    return row["id"], row["template"], row["status"], cpu, size_of(row["host_rss_bytes"]), up, because
