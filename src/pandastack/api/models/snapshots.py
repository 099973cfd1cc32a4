"""Snapshots, and the checkpoints of a sandbox."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from pandastack.api.models.base import Answer, Body, timestamp
from pandastack.store.snapshots import SnapshotRecord


class Capture(Body):
    label: str | None = Field(None, description="Free text, cut to 200 characters")


class Snapshot(Answer):
    id: str
    sandbox_id: str
    workspace: str
    template: str
    kind: str = Field(description="`snapshot`")
    label: str
    cpu: int
    memory_mb: int
    size_bytes: int
    dirty_bytes: int = Field(description="Size of the data written for it")
    created_at: str

    @classmethod
    def of(cls, record: SnapshotRecord) -> Self:
        return cls(
            id=record.id,
            sandbox_id=record.sandbox_id,
            workspace=record.workspace,
            template=record.template,
            kind=record.kind,
            label=record.label,
            cpu=record.cpu,
            memory_mb=record.memory_mb,
            size_bytes=record.size_bytes,
            dirty_bytes=record.dirty_bytes,
            created_at=timestamp(record.created_at),
        )


class Snapshots(Answer):
    snapshots: list[Snapshot]


class Checkpoint(Answer):
    id: str
    created_at: str
    label: str
    size_bytes: int
    dirty_bytes: int
    automatic: bool = Field(description="Taken automatically by the server")
    commands: list[str] = Field(description="The last commands since the previous checkpoint, shortened; oldest first")
    command_count: int = Field(description="Number of commands since the previous checkpoint")

    @classmethod
    def of(cls, record: SnapshotRecord) -> Self:
        return cls(
            id=record.id,
            created_at=timestamp(record.created_at),
            label=record.label,
            size_bytes=record.size_bytes,
            dirty_bytes=record.dirty_bytes,
            automatic=record.automatic,
            commands=list(record.commands),
            command_count=record.command_count,
        )


class Checkpoints(Answer):
    checkpoints: list[Checkpoint]
