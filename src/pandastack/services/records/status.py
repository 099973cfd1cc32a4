"""The moves between the states of a sandbox, and their causes. The registry makes them and refuses all others."""

from __future__ import annotations

from collections.abc import Mapping

from pandastack.errors import ServerError
from pandastack.model.webhooks import Occurrence
from pandastack.store.sandboxes import SandboxRecord, Status

_DELETE = "it is deleted, on request or at its idle limit"
_HIBERNATE = "`hibernate`, its idle limit, or its machine was lost and its disks are kept"
_DIED = "its machine died, or did not survive a restart"
_FOUND = "the server finds its machine so"

MOVES: Mapping[Status, Mapping[Status, str]] = {
    Status.CREATING: {
        Status.RUNNING: "its machine is restored",
        Status.STOPPING: "the create failed, or the server was killed in the middle of it",
    },
    Status.RUNNING: {
        Status.RUNNING: "`rewind`",
        Status.PAUSED: "`pause`",
        Status.HIBERNATED: _HIBERNATE,
        Status.FAILED: _DIED,
        Status.STOPPING: _DELETE,
    },
    Status.PAUSED: {
        Status.RUNNING: "`resume`, `wake` or `rewind`",
        Status.HIBERNATED: _HIBERNATE,
        Status.FAILED: _DIED,
        Status.STOPPING: _DELETE,
    },
    Status.HIBERNATED: {
        Status.RUNNING: "`wake`, a call into it, or `rewind`",
        Status.PAUSED: _FOUND,
        Status.FAILED: "what it was hibernated to is gone",
        Status.STOPPING: _DELETE,
    },
    Status.FAILED: {
        Status.RUNNING: "`wake` or `rewind` restored a checkpoint",
        Status.PAUSED: _FOUND,
        Status.HIBERNATED: _FOUND,
        Status.STOPPING: _DELETE,
    },
    Status.STOPPING: {},
}
"""For each state, the states that may follow it, and when. docs/lifecycle.md has the same table."""

LIVE = (Status.RUNNING, Status.PAUSED, Status.HIBERNATED)
"""States that the engine knows too. At a start its report counts: each may follow the others, and a failure."""


_TOLD = {
    Status.RUNNING: "sandbox.running",
    Status.PAUSED: "sandbox.paused",
    Status.HIBERNATED: "sandbox.hibernated",
    Status.FAILED: "sandbox.failed",
}


def occurrence_of(record: SandboxRecord, before: Status, after: Status) -> Occurrence | None:
    """What webhooks are told of a move, if anything. ``record`` is the sandbox after it."""
    told = "sandbox.created" if before is Status.CREATING and after is Status.RUNNING else _TOLD.get(after)
    if told is None or before is after:
        return None
    return Occurrence(record.workspace, told, record.id, {**_data(record), "status": after, "before": before})


def deletion_of(record: SandboxRecord) -> Occurrence:
    """What webhooks are told when a sandbox is gone."""
    return Occurrence(record.workspace, "sandbox.deleted", record.id, _data(record))


def _data(record: SandboxRecord) -> dict[str, str | None]:
    return {"id": record.id, "template": record.template, "product": record.product, "reason": record.reason}


def check_move(before: Status, after: Status) -> None:
    """Raise :class:`ServerError` when ``after`` may not follow ``before``."""
    if after not in MOVES[before]:
        raise ServerError(f"a sandbox that is {before} cannot become {after}")
