"""``pandastack ci prepare`` and the other commands about runner pools."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack.cli.ci.ending import show
from pandastack.cli.connection import connect, delete_each
from pandastack.cli.output import Json, print_fields, print_json, print_table, report, result
from pandastack.errors import BadRequestError, BuildFailedError

if TYPE_CHECKING:
    from pandastack import Client

Name = Annotated[str, typer.Argument(metavar="POOL", help="The pool's name.")]
Folder = Annotated[
    Path | None,
    typer.Option("--folder", metavar="DIR", exists=True, file_okay=False, help="Upload this as the checkout."),
]


def prepare(
    name: Name,
    template: Annotated[str, typer.Option("--template", help="What its machine is made of.")] = "base",
    steps: Annotated[
        list[str] | None, typer.Option("--run", metavar="COMMAND", help="Run this in the checkout (repeatable).")
    ] = None,
    folder: Folder = None,
    git: Annotated[str | None, typer.Option("--git", metavar="URL", help="Check this repository out.")] = None,
    ref: Annotated[str | None, typer.Option("--ref", help="What of the repository. Default: HEAD.")] = None,
    directory: Annotated[str, typer.Option("--directory", help="Where the checkout is there.")] = "/workspace",
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="A variable (repeatable).")
    ] = None,
    labels: Annotated[list[str] | None, typer.Option("--label", help="By which jobs find it (repeatable).")] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=64, help="Jobs at once.")] = 2,
    job_timeout: Annotated[float, typer.Option("--job-timeout", metavar="SECONDS", help="Of its jobs.")] = 3600.0,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Of preparing.")] = 3600.0,
    network: Annotated[str | None, typer.Option("--network", help="allow, deny or none.")] = None,
    secrets: Annotated[
        list[str] | None, typer.Option("--secret", metavar="NAME", help="For trusted jobs (repeatable).")
    ] = None,
    cpu: Annotated[int | None, typer.Option("--cpu", help="Default: the template's.")] = None,
    memory_mb: Annotated[int | None, typer.Option("--memory-mb", help="Default: the template's.")] = None,
    disk_gb: Annotated[int | None, typer.Option("--disk-gb", help="Default: the template's.")] = None,
    github: Annotated[
        str | None, typer.Option("--github", metavar="SCOPE", help="Run the jobs of this repository or organization.")
    ] = None,
    refresh_at: Annotated[
        str | None, typer.Option("--refresh", metavar="CRON", help="Prepare it anew at these times: '0 4 * * *'.")
    ] = None,
    timezone: Annotated[str, typer.Option("--timezone", help="Of --refresh.")] = "UTC",
    json: Json = False,
) -> None:
    """Make a runner pool or change it, and prepare its machine: a checkout, in which commands are run once."""
    policy = {"egress": network or "allow", "secrets": secrets} if secrets else network
    with connect() as client:
        client.runners.put(
            name,
            template=template,
            prepare=steps or [],
            git=git,
            ref=ref,
            directory=directory,
            env=variables(env or []),
            labels=labels or [],
            concurrency=concurrency,
            job_seconds=job_timeout,
            prepare_seconds=timeout,
            network=policy,
            cpu=cpu,
            memory_mb=memory_mb,
            disk_gb=disk_gb,
            github=github,
            refresh=refresh_at,
            timezone=timezone,
        )
        _refresh(client, name, folder, json)


def refresh(name: Name, folder: Folder = None, json: Json = False) -> None:
    """Prepare a pool's machine anew. Jobs are made of the former one until then, and if that fails."""
    with connect() as client:
        _refresh(client, name, folder, json)


def pools(json: Json = False) -> None:
    """List the runner pools."""
    with connect() as client:
        found = client.runners.list()
    if json:
        print_json(found)
        return
    rows = [
        (
            p["name"],
            p["state"],
            p.get("template"),
            p.get("labels"),
            (p.get("version") or {}).get("made_at"),
            p.get("error"),
        )
        for p in found
    ]
    print_table(("NAME", "STATE", "TEMPLATE", "LABELS", "PREPARED", "LAST ERROR"), rows)


def pool(name: Name, json: Json = False) -> None:
    """Show one runner pool."""
    with connect() as client:
        found = client.runners.get(name)
    if json:
        print_json(found)
    else:
        print_fields(found)


def delete(
    names: Annotated[list[str], typer.Argument(metavar="POOL...", help="The pools' names.")], json: Json = False
) -> None:
    """Delete runner pools. Their jobs that have not ended are cancelled."""
    with connect() as client:
        delete_each(names, client.runners.delete, json)


def sandbox(
    name: Name,
    trusted: Annotated[bool, typer.Option("--trusted", help="Give it the secrets of the pool.")] = False,
    json: Json = False,
) -> None:
    """Create a sandbox of a pool's prepared machine, to look into it."""
    with connect() as client:
        made = client.runners.sandbox(name, trusted=trusted)
    result({"id": made.id}, made.id, as_json=json)


COMMANDS: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "refresh": refresh,
    "pools": pools,
    "pool": pool,
    "delete": delete,
    "sandbox": sandbox,
}
"""Commands of ``pandastack ci``."""


def variables(given: list[str]) -> dict[str, str]:
    """Variables as they are written at the command line. Raises :class:`BadRequestError`."""
    pairs = [each.partition("=") for each in given]
    for name, equals, _ in pairs:
        if not equals:
            raise BadRequestError(f"env: {name[:64]!r} has no value", field="env", hint="--env NAME=VALUE")
    return {name: value for name, _, value in pairs}


def line_of(command: list[str]) -> str:
    """One argument is a line for the shell; several are a program with its arguments."""
    return command[0] if len(command) == 1 else shlex.join(command)


def _refresh(client: Client, name: str, folder: Path | None, json: bool) -> None:
    try:
        made = client.runners.refresh(name, folder, on_output=None if json else show)
    except BuildFailedError as error:
        if json:
            print_json(error.build)
        else:
            report(error, json)
        raise typer.Exit(1) from error
    if json:
        print_json(made)
    elif version := made.get("version"):
        typer.echo(f"{name} is prepared: version {version['id']}, {version['seconds']:.1f} s")
