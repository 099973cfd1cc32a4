"""Template builds."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints

from pandastack.api.models.base import Answer, Body, WholeNumber, timestamp, timestamp_or_none
from pandastack.contract import builds as contract
from pandastack.contract.builds import BuildStatus

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class NewBuild(Body):
    """The text fields of a build's form."""

    name: Name
    dockerfile: str | None = Field(None, description="A Dockerfile; the form's other files are its context")
    cpu: Annotated[WholeNumber, Field(ge=1, le=64)] = 1
    memory_mb: Annotated[WholeNumber, Field(ge=128, le=65536)] = 1024
    size_mb: Annotated[WholeNumber, Field(ge=64, le=16384)] = Field(1024, description="Size of the disk in MiB")
    replace: bool = Field(False, description="Replace a template of the same name")


class Build(Answer):
    id: str
    name: str
    status: str = Field(description="`queued`, `running`, `done` or `failed`; only the last two are final")
    error: str | None
    started_at: str
    ended_at: str | None
    bytes: int | None = Field(description="Size of image and captured memory, once the build is done")
    version: str | None = Field(description="The key of the snapshot, once the build is done")

    @classmethod
    def of(cls, build: contract.Build) -> Self:
        cancelled = build.status is BuildStatus.CANCELLED
        return cls(
            id=build.id,
            name=build.template,
            # Clients poll until they see one of two words; a cancelled build must not keep them waiting.
            status=BuildStatus.FAILED if cancelled else build.status,
            error="the build was cancelled" if cancelled else build.error,
            started_at=timestamp(build.started_at),
            ended_at=timestamp_or_none(build.ended_at),
            bytes=build.size_bytes,
            version=build.version,
        )
