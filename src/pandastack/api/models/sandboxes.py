"""Sandboxes and their idle limits."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, StrictBool

from pandastack.api.models.base import Answer, Body, Number, WholeNumber, omitted_if_none, timestamp, timestamp_or_none
from pandastack.api.models.network import PolicyText, SandboxNetwork, read_policy
from pandastack.api.models.volumes import SandboxVolume, VolumeMount
from pandastack.contract.sandboxes import WantedSize
from pandastack.errors import BadRequestError
from pandastack.services import ControlPlane
from pandastack.services.records.spec import BOOT, DELETE, LifecyclePatch, NewSandbox
from pandastack.store.sandboxes import SandboxRecord, Status

Memory = Literal["kept", "lost"]


def memory_of(record: SandboxRecord) -> Memory:
    return "kept" if record.memory_lost_at is None else "lost"


class CreateSandbox(Body):
    template: str | None = Field(None, description="Name or alias of a template", examples=["code-interpreter"])
    from_snapshot: str | None = Field(None, description="Id of a snapshot; `template` is ignored then")
    cpu: WholeNumber | None = Field(None, description="CPUs, up to the template's `max_cpu`")
    memory_mb: WholeNumber | None = Field(
        None,
        description="MiB, from `min_memory_mb` to `max_memory_mb` of the template, rounded up to a multiple of 128",
    )
    disk_gb: WholeNumber | None = Field(None, description="GiB of the root disk; not less than it has")
    ttl_seconds: WholeNumber | None = Field(None, description="Idle limit in seconds")
    persistent: StrictBool | None = Field(None, description="Exempt from the idle limit")
    metadata: dict[str, str] | None = Field(None, description="Free text; `secret.*` keys are never returned")
    volumes: list[VolumeMount] | None = Field(
        None, description="In the order of their devices, `/dev/vdb` first; not with `from_snapshot`"
    )
    on_expire: str | None = Field(None, description="At the idle limit: `delete` (default) or `hibernate`")
    checkpoint_every: Number | None = Field(
        None, description="Seconds between automatic checkpoints, at least 1; 0: off"
    )
    checkpoint_after_exec: StrictBool | None = Field(None, description="Take a checkpoint after each command")
    max_lifetime_seconds: WholeNumber | None = Field(
        None, description="Seconds after which it is deleted, in use or not; 0: no limit"
    )
    on_memory_loss: str | None = Field(
        None, description="When only its disks are left, or its memory cannot be restored: `boot` (default) or `fail`"
    )

    network: PolicyText | None = Field(None, description="What it may reach; by default, as its template says")

    def wanted(self) -> NewSandbox:
        """The request. With a snapshot, `template` is ignored: clients send a default alongside.

        Raises :class:`BadRequestError`.
        """
        if self.volumes and self.from_snapshot:
            raise BadRequestError("volumes: not together with from_snapshot", field="volumes")
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
            size=WantedSize(self.cpu, self.memory_mb, self.disk_gb),
            on_memory_loss=self.on_memory_loss,
            network=None if self.network is None else read_policy(self.network, "network"),
            volumes=tuple(each.wanted() for each in self.volumes or ()),
        )


class Sandbox(Answer):
    id: str
    template: str
    cpu: int
    memory_mb: int
    disk_gb: int
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
    on_memory_loss: str = Field(description="What happens when only its disks are left: `boot` or `fail`")
    memory: Memory = Field(
        description="`lost`: it has booted, or will boot, from its disks, and the programs that ran have ended"
    )
    memory_lost_at: str | None = Field(description="When its memory was last lost")
    memory_lost_reason: str | None = omitted_if_none("Why its memory was lost")
    accelerator: str | None = Field(description="What runs the guest's code: `kvm` or `tcg`")
    isolation: str | None = Field(description="What stands between the guest and the host, in a sentence")
    network: SandboxNetwork | None = Field(description="What it may reach and what has passed; null: not decided yet")
    volumes: list[SandboxVolume] = Field(description="Its volumes, in the order of their devices")
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
            disk_gb=record.disk_mb >> 10,
            status=record.status,
            metadata={key: text for key, text in record.metadata.items() if not key.startswith("secret.")},
            persistent=record.persistent,
            ttl_seconds=record.ttl_seconds,
            created_at=timestamp(record.created_at),
            boot_ms=record.boot_ms or 0,
            boot_mode=record.boot_mode or "",
            from_snapshot=record.from_snapshot,
            on_expire=record.on_expire or DELETE,
            expires_at=timestamp_or_none(plane.deadlines.expires_at(record)),
            max_lifetime_seconds=record.max_lifetime_seconds,
            on_memory_loss=record.on_memory_loss or BOOT,
            memory=memory_of(record),
            memory_lost_at=timestamp_or_none(record.memory_lost_at),
            memory_lost_reason=record.memory_lost_reason,
            accelerator=None if host is None else host.accelerator,
            isolation=None if host is None else host.isolation,
            network=SandboxNetwork.of(
                record.network, plane.traffic.of(record.node, record.id), made=record.status != Status.CREATING
            ),
            volumes=[SandboxVolume.of(each) for each in record.volumes],
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
    on_memory_loss: str
    memory: Memory
    memory_lost_at: str | None
    memory_lost_reason: str | None

    @classmethod
    def of(cls, record: SandboxRecord, plane: ControlPlane) -> Self:
        """The limits of its life, and when checkpoints are taken."""
        return cls(
            ttl_seconds=record.ttl_seconds,
            persistent=record.persistent,
            idle_seconds=plane.sandboxes.idle_seconds(record),
            in_use=plane.activity.busy(record.id),
            on_expire=record.on_expire or DELETE,
            expires_at=timestamp_or_none(plane.deadlines.expires_at(record)),
            checkpoint_every=record.checkpoint_every,
            checkpoint_after_exec=record.checkpoint_after_exec,
            max_lifetime_seconds=record.max_lifetime_seconds,
            on_memory_loss=record.on_memory_loss or BOOT,
            memory=memory_of(record),
            memory_lost_at=timestamp_or_none(record.memory_lost_at),
            memory_lost_reason=record.memory_lost_reason,
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
    on_memory_loss: str | None = Field(None, description="When only its disks are left: `boot` or `fail`")

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
            self.on_memory_loss,
        )


class SandboxStatus(Answer):
    status: Status
