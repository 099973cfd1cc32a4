"""The commands of ``pandastack sandbox`` about its timeline: take, list and delete checkpoints, rewind to one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack.cli.connection import Id, connect, delete_each, record_of
from pandastack.cli.output import Json, print_json, print_table, result, size_of
from pandastack.cli.sandbox.diff import diff

if TYPE_CHECKING:
    from pandastack import Checkpoint

CheckpointId = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="The checkpoint's id.")]


def checkpoint(
    sandbox_id: Id,
    label: Annotated[str | None, typer.Option("--label", help="A name for people.")] = None,
    json: Json = False,
) -> None:
    """Take a checkpoint of a sandbox's present state and print its id."""
    with connect() as client:
        made = client.sandboxes.get(sandbox_id).checkpoint(label)
    result(asdict(made), made.id, as_json=json)


def timeline(sandbox_id: Id, json: Json = False) -> None:
    """List a sandbox's checkpoints, oldest first, with what ran before each."""
    with connect() as client:
        found = client.sandboxes.get(sandbox_id).timeline()
    if json:
        print_json([asdict(each) for each in found])
        return
    rows = [(c.id, c.created_at, size_of(c.size_bytes), size_of(c.dirty_bytes), c.label, _ran(c)) for c in found]
    print_table(("ID", "CREATED", "SIZE", "CHANGED", "LABEL", "RAN"), rows)


def delete_checkpoint(
    sandbox_id: Id,
    checkpoint_ids: Annotated[list[str], typer.Argument(metavar="CHECKPOINT", help="The checkpoints' ids.")],
    json: Json = False,
) -> None:
    """Delete checkpoints from a sandbox's timeline. The others are deleted even when one cannot be."""
    with connect() as client:
        sandbox = client.sandboxes.get(sandbox_id)
        delete_each(checkpoint_ids, sandbox.delete_checkpoint, json)


def rewind(sandbox_id: Id, checkpoint_id: CheckpointId, json: Json = False) -> None:
    """Rewind to a checkpoint: memory, processes and disk are as they were then."""
    with connect() as client:
        sandbox = client.sandboxes.get(sandbox_id).rewind(checkpoint_id)
    result(record_of(sandbox), sandbox.status, as_json=json)


def _ran(checkpoint: Checkpoint) -> str:
    """The commands, joined into one table cell."""
    before = checkpoint.command_count - len(checkpoint.commands)
    return "; ".join([f"({before} more)"] * (before > 0) + list(checkpoint.commands))


COMMANDS: dict[str, Callable[..., None]] = {
    "checkpoint": checkpoint,
    "timeline": timeline,
    "delete-checkpoint": delete_checkpoint,
    "rewind": rewind,
    "diff": diff,
}
"""This module's commands of ``pandastack sandbox``, in the order of its help."""
