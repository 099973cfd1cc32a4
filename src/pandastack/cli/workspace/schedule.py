"""``pandastack schedule``: functions that run at the times of a cron expression."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pandastack.cli.connection import connect, delete_each
from pandastack.cli.output import Json, print_fields, print_json, print_table, result

group = typer.Typer(
    no_args_is_help=True, help="Run functions at the times of a cron expression.", rich_markup_mode=None
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The schedule's id.")]
Cron = Annotated[str, typer.Option("--cron", metavar="EXPRESSION", help="Minute, hour, day, month, weekday.")]
NewCron = Annotated[str | None, typer.Option("--cron", metavar="EXPRESSION", help="Another expression.")]
Zone = Annotated[str | None, typer.Option("--timezone", metavar="ZONE", help="Its time zone, UTC by default.")]
Overlap = Annotated[
    str | None, typer.Option("--overlap", help="While an earlier run has not ended: skip, queue or allow.")
]
Catchup = Annotated[
    str | None, typer.Option("--catchup", help="For times at which no server ran: none, or one run for all.")
]
Jitter = Annotated[
    int | None, typer.Option("--jitter", min=0, metavar="SECONDS", help="Begin each run up to so much later.")
]


@group.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")],
    function: Annotated[str, typer.Option("--function", metavar="ID", help="The function that runs.")],
    cron: Cron,
    timezone: Zone = None,
    overlap: Overlap = None,
    catchup: Catchup = None,
    jitter: Jitter = None,
    paused: Annotated[bool, typer.Option("--paused", help="Do not run it before it is resumed.")] = False,
    json: Json = False,
) -> None:
    """Have a function run at the times of a cron expression; prints the schedule's id."""
    options = {"timezone": timezone, "overlap": overlap, "catchup": catchup, "jitter_seconds": jitter}
    with connect() as client:
        made = client.schedules.create(name, function, cron, paused=paused or None, **options)  # type: ignore[arg-type]
    result(made, made["id"], as_json=json)


@group.command("list")
def list_(json: Json = False) -> None:
    """List the schedules."""
    with connect() as client:
        found = client.schedules.list()
    if json:
        print_json(found)
        return
    rows = [(s["id"], s["name"], s["cron"], s.get("timezone"), s.get("function_id"), _next(s)) for s in found]
    print_table(("ID", "NAME", "CRON", "ZONE", "FUNCTION", "NEXT RUN"), rows)


@group.command()
def get(schedule: Id, json: Json = False) -> None:
    """Show one schedule, with its next times."""
    with connect() as client:
        found = client.schedules.get(schedule)
    if json:
        print_json(found)
    else:
        print_fields({**found, "next_runs": ", ".join(found.get("next_runs", ()))})


@group.command()
def update(
    schedule: Id,
    name: Annotated[str | None, typer.Option("--name", help="Another name.")] = None,
    cron: NewCron = None,
    timezone: Zone = None,
    overlap: Overlap = None,
    catchup: Catchup = None,
    jitter: Jitter = None,
    json: Json = False,
) -> None:
    """Change a schedule. Another expression or zone counts from now."""
    options = {"timezone": timezone, "overlap": overlap, "catchup": catchup, "jitter_seconds": jitter}
    _change(schedule, json, name=name, cron=cron, **options)


@group.command()
def pause(schedule: Id, json: Json = False) -> None:
    """Run it no more until it is resumed."""
    _change(schedule, json, paused=True)


@group.command()
def resume(schedule: Id, json: Json = False) -> None:
    """Run it again, from its next time on."""
    _change(schedule, json, paused=False)


@group.command()
def trigger(schedule: Id, json: Json = False) -> None:
    """Begin a run now; prints the run's id."""
    with connect() as client:
        run = client.schedules.trigger(schedule)
    result(run, run["run_id"], as_json=json)


@group.command()
def runs(schedule: Id, json: Json = False) -> None:
    """List what became of the last 50 times."""
    with connect() as client:
        found = client.schedules.runs(schedule)
    if json:
        print_json(found)
        return
    rows = [(r["run_id"], r.get("nominal_at"), r["status"], r.get("version"), r.get("reason")) for r in found]
    print_table(("RUN", "TIME", "STATUS", "VERSION", "REASON"), rows)


@group.command()
def delete(
    schedules: Annotated[list[str], typer.Argument(metavar="ID", help="The schedules' ids.")], json: Json = False
) -> None:
    """Delete schedules. The others are deleted even when one cannot be."""
    with connect() as client:
        delete_each(schedules, client.schedules.delete, json)


def _change(schedule: str, json: bool, **changes: Any) -> None:
    with connect() as client:
        found = client.schedules.update(schedule, **changes)
    result(found, f"{found['name']}: next run {_next(found)}", as_json=json)


def _next(schedule: Any) -> str:
    return "paused" if schedule.get("paused") else str(schedule.get("next_run_at", "never"))
