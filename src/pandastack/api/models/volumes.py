"""Volumes, and those of sandboxes."""

from __future__ import annotations

from typing import Self

from pydantic import Field, StrictBool

from pandastack.api.models.base import Answer, Body, WholeNumber, omitted_if_none, timestamp
from pandastack.errors import BadRequestError
from pandastack.services.records.spec import WantedVolume
from pandastack.services.volumes.leases import Holder
from pandastack.services.volumes.spec import DEFAULT_SIZE_MB, LARGEST_MB, NewVolume, OfMount, OfVolume
from pandastack.services.volumes.volumes import Volume as VolumeSeen
from pandastack.store.volumes import VOLUME, VolumeUse


class VolumeMount(Body):
    name: str = Field(description="Name of the volume")
    read_only: StrictBool = Field(False, description="A copy of the volume as it is now, which is only read")
    path: str | None = Field(None, description="Where it is mounted; by default `/mnt/NAME`")

    def wanted(self) -> WantedVolume:
        return WantedVolume(self.name, self.read_only, self.path)


class VolumeSource(Body):
    volume: str | None = Field(None, description="Name of a volume")
    sandbox: str | None = Field(None, description="Id of a sandbox, with `mount`")
    mount: str | None = Field(None, description="Path that a volume of the sandbox is mounted at")

    def wanted(self) -> OfVolume | OfMount:
        """The source. Raises :class:`BadRequestError` unless it is exactly one."""
        if self.volume is not None and self.sandbox is None and self.mount is None:
            return OfVolume(self.volume)
        if self.volume is None and self.sandbox is not None and self.mount is not None:
            return OfMount(self.sandbox, self.mount)
        hint = '{"volume": NAME} or {"sandbox": ID, "mount": PATH}'
        raise BadRequestError("from: must name a volume, or a sandbox and a mount", field="from", hint=hint)


class CreateVolume(Body):
    name: str = Field(description="Unique in the workspace", examples=["cache"])
    size_mb: WholeNumber | None = Field(
        None,
        description=f"MiB, at most {LARGEST_MB}; by default {DEFAULT_SIZE_MB}, or as much as its source has",
    )
    source: VolumeSource | None = Field(None, alias="from", description="What it is a clone of; by default it is empty")
    kind: str = Field(VOLUME, description="`volume`, or `snapshot`: one that is only read")

    def wanted(self) -> NewVolume:
        """The request. Raises :class:`BadRequestError`."""
        source = None if self.source is None else self.source.wanted()
        return NewVolume(self.name, self.size_mb, source, self.kind)


class GrowVolume(Body):
    size_mb: WholeNumber = Field(description=f"MiB, at most {LARGEST_MB}; not less than it has")


class VolumeHolder(Answer):
    sandbox_id: str
    path: str = Field(description="Where the volume is mounted")
    read_only: bool

    @classmethod
    def of(cls, holder: Holder) -> Self:
        return cls(sandbox_id=holder.sandbox_id, path=holder.path, read_only=holder.read_only)


class Volume(Answer):
    name: str
    size_mb: int
    created_at: str
    kind: str = Field(description="`volume`, or `snapshot`: one that is only read")
    state: str = Field(description="`ready`, or `lost`: its disk is missing on its node")
    attached_to: list[VolumeHolder] = Field(description="The sandboxes that have it, one of which may write")
    size_bytes: int | None = omitted_if_none("What it takes on the disk of its node")

    @classmethod
    def of(cls, seen: VolumeSeen) -> Self:
        record = seen.record
        return cls(
            name=record.name,
            size_mb=record.size_mb,
            created_at=timestamp(record.created_at),
            kind=record.kind,
            state=record.state,
            attached_to=[VolumeHolder.of(each) for each in seen.holders],
            size_bytes=seen.size_bytes,
        )


class SandboxVolume(Answer):
    name: str | None = Field(description="Name of the volume; null: a clone that belongs to the sandbox")
    path: str = Field(description="Where it is mounted")
    read_only: bool

    @classmethod
    def of(cls, use: VolumeUse) -> Self:
        return cls(name=use.name, path=use.path, read_only=use.read_only)
