"""Why a sandbox cannot be used now, in the words of the API. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from pandastack.errors import ConflictError
from pandastack.store.sandboxes import SandboxRecord, Status
from pandastack.store.snapshots import SnapshotRecord

_HINTS = {Status.FAILED: "create a new sandbox", Status.PAUSED: "resume it first", Status.HIBERNATED: "wake it first"}


def unusable(record: SandboxRecord, checkpoint: SnapshotRecord | None = None) -> ConflictError:
    """The error for a request that the sandbox's status does not allow; ``checkpoint`` is a failed sandbox's last."""
    why = {
        Status.CREATING: "is still being created",
        Status.PAUSED: "is paused",
        Status.STOPPING: "is being deleted",
        Status.FAILED: f"has failed: {record.reason or 'its machine is gone'}",
    }
    message = f"sandbox {record.id} {why.get(record.status, f'is {record.status}')}"
    detail = {"status": record.status} | ({"reason": record.reason} if record.reason else {})
    hint = _HINTS.get(record.status)
    if record.status == Status.FAILED and checkpoint is not None:
        detail["checkpoint"] = checkpoint.id
        hint = f"wake restores its checkpoint of {_minute(checkpoint.created_at)}; what it did since is lost"
    return ConflictError(message, detail=detail, hint=hint)


def of_product(record: SandboxRecord) -> ConflictError:
    """The error for a request that only the product may make whose machine the sandbox is."""
    message = f"sandbox {record.id} is the machine of a {record.product}"
    owner = record.metadata.get(record.product or "", record.id)
    hint = f"use /v1/{record.product}s/{owner} instead"
    return ConflictError(message, hint=hint, detail={"product": record.product})


def _minute(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
