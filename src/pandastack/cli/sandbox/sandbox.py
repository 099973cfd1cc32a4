"""``pandastack sandbox``: create, look at, use and delete sandboxes."""

from __future__ import annotations

import posixpath
import shlex
from pathlib import Path
from typing import Annotated

import typer

from pandastack.cli.connection import Id, connect, delete_each, follow, record_of
from pandastack.cli.output import Json, print_fields, print_json, print_table, result
from pandastack.cli.sandbox import lifecycle, ports, timeline
from pandastack.cli.sandbox.lifecycle import CheckpointEvery, MaxLifetime, OnExpire, OnMemoryLoss
from pandastack.cli.sandbox.network import Allow, Deny, Service, Word, egress_of
from pandastack.cli.sandbox.repl import repl
from pandastack.cli.sandbox.shell import shell
from pandastack.cli.workspace.volume import Volumes, mounts
from pandastack.errors import PandastackError

group = typer.Typer(no_args_is_help=True, help="Create, use and delete sandboxes.", rich_markup_mode=None)


@group.command()
def create(
    template: Annotated[str, typer.Option("--template", "-t", help="What to create it from.")] = "code-interpreter",
    cpu: Annotated[int | None, typer.Option("--cpu", min=1, help="CPUs.")] = None,
    memory: Annotated[int | None, typer.Option("--memory", min=1, metavar="MB", help="Memory in MiB.")] = None,
    disk: Annotated[int | None, typer.Option("--disk", min=1, metavar="GB", help="Root disk in GiB.")] = None,
    ttl: Annotated[int | None, typer.Option("--ttl", min=0, help="Idle limit in seconds.")] = None,
    snapshot: Annotated[
        str | None, typer.Option("--from-snapshot", metavar="ID", help="A snapshot, instead of a template.")
    ] = None,
    persistent: Annotated[bool, typer.Option("--persistent", help="Exempt it from the idle limit.")] = False,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="A label (repeatable).")
    ] = None,
    on_expire: OnExpire = None,
    checkpoint_every: CheckpointEvery = None,
    after_exec: Annotated[
        bool, typer.Option("--checkpoint-after-exec", help="Take a checkpoint after each command.")
    ] = False,
    max_lifetime: MaxLifetime = None,
    on_memory_loss: OnMemoryLoss = None,
    network: Annotated[Word | None, typer.Option("--network", help="What it may reach, if not rules.")] = None,
    allow: Allow = None,
    deny: Deny = None,
    services: Service = None,
    volumes: Volumes = None,
    json: Json = False,
) -> None:
    """Create a sandbox and print its id."""
    labels = _labels(metadata or [])
    egress = egress_of(network, allow, deny)
    if services and egress is None:  # the template's policy may be narrower than the default
        raise typer.BadParameter("--service wants --network, --allow or --deny beside it")
    with connect() as client:
        sandbox = client.sandboxes.create(
            template,
            cpu=cpu,
            memory_mb=memory,
            disk_gb=disk,
            ttl_seconds=ttl,
            persistent=persistent,
            metadata=labels or None,
            from_snapshot=snapshot,
            volumes=mounts(volumes or []) or None,
            on_expire=on_expire,
            checkpoint_every=checkpoint_every,
            checkpoint_after_exec=after_exec or None,
            max_lifetime_seconds=max_lifetime,
            on_memory_loss=on_memory_loss,
            network=None if egress is None else {"egress": egress} | ({"services": services} if services else {}),
        )
    result(record_of(sandbox), sandbox.id, as_json=json)


@group.command("list")
def list_(
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="NAME=VALUE", help="status=NAME or metadata.KEY=TEXT (repeatable)."),
    ] = None,
    json: Json = False,
) -> None:
    """List the sandboxes, newest first.

    Several statuses mean any of them; all of the metadata must match.
    """
    statuses, metadata = _filters(filters or [])
    with connect() as client:
        found = client.sandboxes.list(status=statuses, metadata=metadata)
    if json:
        print_json([record_of(each) for each in found])
        return
    rows = [(s.id, s.template, s.status, s.cpu, f"{s.memory_mb} MB", s.created_at) for s in found]
    print_table(("ID", "TEMPLATE", "STATUS", "CPU", "MEMORY", "CREATED"), rows)


@group.command()
def get(sandbox_id: Id, json: Json = False) -> None:
    """Show one sandbox."""
    with connect() as client:
        record = record_of(client.sandboxes.get(sandbox_id))
    if json:
        print_json(record)
    else:
        print_fields(record)


@group.command("exec", context_settings={"allow_interspersed_args": False})
def exec_(
    sandbox_id: Id,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="A shell command, or its words.")],
    timeout: Annotated[int | None, typer.Option("--timeout", min=1, help="Limit in seconds.")] = None,
    json: Json = False,
) -> None:
    """Run a command in a sandbox.

    A single argument is given to the shell as it is; several are quoted, so that each stays one word. Options
    of pandastack come before the id. The exit status is the command's, 124 after a timeout.
    """
    cmd = _command(command)
    with connect() as client:
        outcome = follow(client.sandboxes.get(sandbox_id), cmd, timeout, collect=json)
    if json:
        print_json({"exit_code": outcome.exit_code, "stdout": outcome.stdout, "stderr": outcome.stderr})
    raise typer.Exit(outcome.exit_code)


@group.command()
def cp(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A local path, or ID:/path.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="A local path, or ID:/path.")],
    json: Json = False,
) -> None:
    """Copy a file into or out of a sandbox. One side is ID:/path, the other a local path."""
    there, here = _remote(source), _remote(destination)
    if (there is None) == (here is None):
        raise typer.BadParameter("exactly one of SRC and DST must be ID:/path")
    if there is not None:
        copied = _download(*there, Path(destination))
    else:
        assert here is not None  # the check above
        copied = _upload(Path(source), *here)
    if json:
        print_json({"source": source, "destination": destination, "bytes": copied})


@group.command()
def delete(
    sandbox_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The sandboxes' ids.")],
    json: Json = False,
) -> None:
    """Delete sandboxes and their disks. The others are deleted even when one cannot be."""
    with connect() as client:
        delete_each(sandbox_ids, client.sandboxes.delete, json)


group.command()(shell)
group.command()(repl)
for _name, _function in {**lifecycle.COMMANDS, **timeline.COMMANDS, **ports.COMMANDS}.items():
    group.command(_name)(_function)


def _command(words: list[str]) -> str:
    words = words[1:] if words[0] == "--" else words
    if not words:
        raise typer.BadParameter("no command given", param_hint="COMMAND")
    return words[0] if len(words) == 1 else shlex.join(words)


def _labels(pairs: list[str], option: str = "--metadata") -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    wrong = next((key for key, equals, _ in split if not key or not equals), None)
    if wrong is not None:
        raise typer.BadParameter(f"{wrong!r} is not KEY=VALUE", param_hint=option)
    return {key: value for key, _, value in split}


def _filters(pairs: list[str]) -> tuple[list[str], dict[str, str]]:
    """Statuses and metadata."""
    statuses = [pair.removeprefix("status=") for pair in pairs if pair.startswith("status=")]
    metadata = [pair.removeprefix("metadata.") for pair in pairs if pair.startswith("metadata.")]
    if len(statuses) + len(metadata) < len(pairs):
        raise typer.BadParameter("only status=NAME and metadata.KEY=TEXT", param_hint="--filter")
    return statuses, _labels(metadata, "--filter")


def _remote(argument: str) -> tuple[str, str] | None:
    """Id and path of ``ID:/path``; None for a local path, in which a slash comes before any colon."""
    sandbox_id, colon, path = argument.partition(":")
    if colon and sandbox_id and "/" not in sandbox_id and path.startswith("/"):
        return sandbox_id, path
    return None


def _download(sandbox_id: str, path: str, local: Path) -> int:
    target = local / posixpath.basename(path) if local.is_dir() else local
    with connect() as client:
        content = client.sandboxes.get(sandbox_id).filesystem.read(path)
    try:
        return target.write_bytes(content)
    except OSError as cause:
        raise PandastackError(f"cannot write {target}: {cause.strerror}") from cause


def _upload(local: Path, sandbox_id: str, path: str) -> int:
    target = posixpath.join(path, local.name) if path.endswith("/") else path
    try:
        with local.open("rb"), connect() as client:
            return int(client.sandboxes.get(sandbox_id).filesystem.upload(local, target)["bytes"])
    except OSError as cause:
        raise PandastackError(f"cannot read {local}: {cause.strerror}") from cause
