"""Sandboxes and their idle limits."""

from __future__ import annotations

from typing import Self

from pydantic import Field, StrictBool

from pandastack.api.models.base import Answer, Body, Number, WholeNumber, omitted_if_none, timestamp, timestamp_or_none
from pandastack.errors import BadRequestError
from pandastack.services import ControlPlane
from pandastack.services.records.spec import DELETE, LifecyclePatch, NewSandbox
from pandastack.store.sandboxes import SandboxRecord, Status


class VolumeMount(Body):
    name: str
    read_only: bool = False


class CreateSandbox(Body):
    template: str | None = Field(None, description="Name or alias of a template", examples=["code-interpreter"])
    from_snapshot: str | None = Field(None, description="Id of a snapshot; `template` is ignored then")
    ttl_seconds: WholeNumber | None = Field(None, description="Idle limit in seconds")
    persistent: StrictBool | None = Field(None, description="Exempt from the idle limit")
    metadata: dict[str, str] | None = Field(None, description="Free text; `secret.*` keys are never returned")
    volumes: list[VolumeMount] | None = None
    on_expire: str | None = Field(None, description="At the idle limit: `delete` (default) or `hibernate`")
    checkpoint_every: Number | None = Field(
        None, description="Seconds between automatic checkpoints, at least 1; 0: off"
    )
    checkpoint_after_exec: StrictBool | None = Field(None, description="Take a checkpoint after each command")
    max_lifetime_seconds: WholeNumber | None = Field(
        None, description="Seconds after which it is deleted, in use or not; 0: no limit"
    )

    def wanted(self) -> NewSandbox:
        """The request. With a snapshot, `template` is ignored: clients send a default alongside.

        Raises :class:`BadRequestError`.
        """
        if self.volumes and self.from_snapshot:
            raise BadRequestError("volumes: not together with from_snapshot", field="volumes")
        if self.volumes:
            raise BadRequestError(f"unknown volume {self.volumes[0].name[:64]!r}", field="volumes")
        if not self.template and not self.from_snapshot:
            hint = "GET /v1/templates lists the templates"
            raise BadRequestError("template: is required", field="template", hint=hint)
        return NewSandbox(
            template="" if self.from_snapshot else self.template or "",
            ttl_seconds=self.ttl_seconds,
            persistent=bool(self.persistent),
            metadata=self.metadata or {},
            snapshot=self.from_snapshot or None,
            on_expire=self.on_expire,
            checkpoint_every=self.checkpoint_every,
            checkpoint_after_exec=bool(self.checkpoint_after_exec),
            max_lifetime_seconds=self.max_lifetime_seconds,
        )


class Sandbox(Answer):
    id: str
    template: str
    cpu: int
    memory_mb: int
    status: Status
    metadata: dict[str, str]
    persistent: bool
    ttl_seconds: int
    created_at: str
    boot_ms: int
    boot_mode: str
    from_snapshot: str | None
    on_expire: str = Field(description="What happens at the idle limit: `delete` or `hibernate`")
    expires_at: str | None = Field(
        description="When the idle limit, which each use moves, or the longest life is over; null: never"
    )
    max_lifetime_seconds: int | None = Field(description="Seconds after which it is deleted, in use or not")
    accelerator: str | None = Field(description="What runs the guest's code: `kvm` or `tcg`")
    isolation: str | None = Field(description="What stands between the guest and the host, in a sentence")
    reason: str | None = omitted_if_none("Why it failed")

    @classmethod
    def of(cls, record: SandboxRecord, plane: ControlPlane) -> Self:
        """The sandbox without its metadata under ``secret.``."""
        host = plane.host_of(record)
        return cls(
            id=record.id,
            template=record.template,
            cpu=record.cpu,
            memory_mb=record.memory_mb,
            status=record.status,
            metadata={key: text for key, text in record.metadata.items() if not key.startswith("secret.")},
            persistent=record.persistent,
            ttl_seconds=record.ttl_seconds,
            created_at=timestamp(record.created_at),
            boot_ms=record.boot_ms or 0,
            boot_mode=record.boot_mode or "",
            from_snapshot=record.from_snapshot,
            on_expire=record.on_expire or DELETE,
            expires_at=timestamp_or_none(plane.sandboxes.expires_at(record)),
            max_lifetime_seconds=record.max_lifetime_seconds,
            accelerator=None if host is None else host.accelerator,
            isolation=None if host is None else host.isolation,
            reason=record.reason,
        )


class Lifecycle(Answer):
    ttl_seconds: int
    persistent: bool
    idle_seconds: int
    in_use: bool = Field(description="Whether a call is in progress or a command runs: the idle clock stands at 0")
    on_expire: str
    expires_at: str | None
    checkpoint_every: float | None
    checkpoint_after_exec: bool
    max_lifetime_seconds: int | None

    @classmethod
    def of(cls, record: SandboxRecord, plane: ControlPlane) -> Self:
        """The limits of its life, and when checkpoints are taken."""
        return cls(
            ttl_seconds=record.ttl_seconds,
            persistent=record.persistent,
            idle_seconds=plane.sandboxes.idle_seconds(record),
            in_use=plane.activity.busy(record.id),
            on_expire=record.on_expire or DELETE,
            expires_at=timestamp_or_none(plane.sandboxes.expires_at(record)),
            checkpoint_every=record.checkpoint_every,
            checkpoint_after_exec=record.checkpoint_after_exec,
            max_lifetime_seconds=record.max_lifetime_seconds,
        )


class PatchLifecycle(Body):
    ttl_seconds: WholeNumber | None = Field(None, description="Idle limit in seconds")
    persistent: StrictBool | None = None
    on_expire: str | None = Field(None, description="At the idle limit: `delete` or `hibernate`")
    checkpoint_every: Number | None = Field(None, description="Seconds between checkpoints, at least 1; 0 or null: off")
    checkpoint_after_exec: StrictBool | None = Field(None, description="Take a checkpoint after each command")
    max_lifetime_seconds: WholeNumber | None = Field(
        None, description="Seconds after its creation at which it is deleted, in use or not; 0: no limit"
    )

    def wanted(self) -> LifecyclePatch:
        """The request. `checkpoint_every` is the only field for which null does not mean "unchanged"."""
        off = self.checkpoint_every is None and "checkpoint_every" in self.model_fields_set
        every = 0.0 if off else self.checkpoint_every
        return LifecyclePatch(
            self.ttl_seconds,
            self.persistent,
            self.on_expire,
            every,
            self.checkpoint_after_exec,
            self.max_lifetime_seconds,
        )


class SandboxStatus(Answer):
    status: Status
