"""The lifecycle commands of ``pandastack sandbox``: pause, hibernate and wake it, copy it, set its limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import typer

from pandastack.cli.connection import Id, connect, record_of
from pandastack.cli.output import Json, print_fields, print_json, report, result
from pandastack.errors import CapacityError, ServerError

OnExpire = Annotated[
    Literal["delete", "hibernate"] | None, typer.Option("--on-expire", help="What happens at the idle limit.")
]
CheckpointEvery = Annotated[
    float | None,
    typer.Option(
        "--checkpoint-every", metavar="SECONDS", min=0, help="Interval between automatic checkpoints; 0 turns them off."
    ),
]
MaxLifetime = Annotated[
    int | None,
    typer.Option(
        "--max-lifetime", metavar="SECONDS", min=0, help="Delete it after that long, in use or not; 0 sets no limit."
    ),
]
OnMemoryLoss = Annotated[
    Literal["boot", "fail"] | None,
    typer.Option("--on-memory-loss", help="What happens when only its disks are left, or its memory does not fit."),
]


def pause(sandbox_id: Id, json: Json = False) -> None:
    """Pause a sandbox's CPUs; its memory stays on the host."""
    _change(sandbox_id, "pause", json)


def resume(sandbox_id: Id, json: Json = False) -> None:
    """Resume a paused sandbox."""
    _change(sandbox_id, "resume", json)


def hibernate(sandbox_id: Id, json: Json = False) -> None:
    """Write a sandbox's memory to storage and end its machine; the next call into it wakes it."""
    _change(sandbox_id, "hibernate", json)


def wake(sandbox_id: Id, json: Json = False) -> None:
    """Wake a hibernated sandbox."""
    _change(sandbox_id, "wake", json)


def snapshot(sandbox_id: Id, json: Json = False) -> None:
    """Capture a sandbox and print the snapshot's id; `sandbox create --from-snapshot` creates others from it."""
    with connect() as client:
        snapshot_id = client.sandboxes.get(sandbox_id).snapshot()
    result({"id": snapshot_id, "sandbox_id": sandbox_id}, snapshot_id, as_json=json)


def fork(
    sandbox_id: Id,
    count: Annotated[int, typer.Option("--count", min=1, max=16, help="How many copies of the same moment.")] = 1,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", metavar="CHECKPOINT", help="Copy the sandbox as it was at this checkpoint."),
    ] = None,
    json: Json = False,
) -> None:
    """Copy a running sandbox, memory and disk, and print the ids of the copies. With --checkpoint there is one copy.

    If there is room for only some of them, those are printed and the exit status is 1.
    """
    if checkpoint is not None and count != 1:
        raise typer.BadParameter("not together with --checkpoint", param_hint="--count")
    with connect() as client:
        sandboxes = client.sandboxes
        if checkpoint is not None:
            children = [sandboxes.get(sandbox_id).fork_checkpoint(checkpoint)]
        else:
            children = [sandboxes.fork(sandbox_id)] if count == 1 else sandboxes.fork_tree(sandbox_id, count)
    result([record_of(each) for each in children], "\n".join(each.id for each in children), as_json=json)
    if len(children) < count:
        report(CapacityError(f"only {len(children)} of {count} copies fit"), json)
        raise typer.Exit(1)


def promote(
    sandbox_id: Id,
    cleanup: Annotated[bool, typer.Option("--cleanup", help="Delete the other copies of the same fork.")] = False,
    json: Json = False,
) -> None:
    """Make a copy independent of the others, and print the ids of those that were deleted."""
    with connect() as client:
        answer = client.sandboxes.promote(sandbox_id, cleanup_siblings=cleanup)
    if json:
        print_json(answer)
    else:
        for each in answer.get("deleted") or []:
            typer.echo(each)
    failures = answer.get("failures") or {}
    for failed, reason in failures.items():
        report(ServerError(f"{failed} could not be deleted: {reason}"), json)
    raise typer.Exit(int(bool(failures)))


def set_ttl(
    sandbox_id: Id,
    seconds: Annotated[int, typer.Argument(metavar="SECONDS", min=0, help="The new idle limit.")],
    json: Json = False,
) -> None:
    """Set a sandbox's idle limit and show its lifecycle."""
    with connect() as client:
        answer = client.sandboxes.get(sandbox_id).set_ttl(seconds)
    if json:
        print_json(answer)
    else:
        print_fields(answer)


def set_lifecycle(
    sandbox_id: Id,
    ttl: Annotated[int | None, typer.Option("--ttl", min=0, help="Idle limit in seconds.")] = None,
    persistent: Annotated[
        bool | None, typer.Option("--persistent/--not-persistent", help="Exempt it from the idle limit, or not.")
    ] = None,
    on_expire: OnExpire = None,
    checkpoint_every: CheckpointEvery = None,
    after_exec: Annotated[
        bool | None,
        typer.Option("--checkpoint-after-exec/--no-checkpoint-after-exec", help="A checkpoint after each command."),
    ] = None,
    max_lifetime: MaxLifetime = None,
    on_memory_loss: OnMemoryLoss = None,
    json: Json = False,
) -> None:
    """Show a sandbox's lifecycle, after changing what is given."""
    changes = (ttl, persistent, on_expire, checkpoint_every, after_exec, max_lifetime, on_memory_loss)
    with connect() as client:
        sandbox = client.sandboxes.get(sandbox_id)
        changed = any(each is not None for each in changes)
        answer = sandbox.set_lifecycle(*changes) if changed else sandbox.lifecycle()
    if json:
        print_json(answer)
    else:
        print_fields(answer)


def _change(sandbox_id: str, verb: str, as_json: bool) -> None:
    """Call one of the methods that change the status, and print the new one."""
    with connect() as client:
        sandbox = client.sandboxes.get(sandbox_id)
        getattr(sandbox, verb)()
    result({"id": sandbox.id, "status": sandbox.status}, sandbox.status, as_json=as_json)


COMMANDS: dict[str, Callable[..., None]] = {
    "pause": pause,
    "resume": resume,
    "hibernate": hibernate,
    "wake": wake,
    "set-ttl": set_ttl,
    "snapshot": snapshot,
    "fork": fork,
    "promote": promote,
    "lifecycle": set_lifecycle,
}
"""What ``pandastack sandbox`` takes from here, in the order of its help."""
