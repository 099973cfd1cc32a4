"""Template builds."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, Json, StringConstraints

from pandastack.api.models.base import Answer, Body, WholeNumber, timestamp, timestamp_or_none
from pandastack.contract import builds as contract
from pandastack.contract.builds import BuildStatus

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]

Target = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,128}$")]


class GivenSecret(Body):
    """A secret of a build: its value, the same in base64, or one that the workspace has stored."""

    value: str | None = Field(None, repr=False)
    base64: str | None = Field(None, repr=False)
    secret: str | None = Field(None, description="The name of a secret of the workspace that is not bound to hosts")


class BuildFields(Body):
    """The text fields of the form of any build."""

    target: Target = Field("", description="The stage that becomes the template, by name or index; default: the last")
    no_cache: bool = Field(False, description="Carry the instructions out whatever is cached")
    build_args: Json[dict[str, str]] = Field({}, description="Build arguments: a JSON object of texts")
    secrets: Json[dict[str, GivenSecret]] = Field(
        {}, description='Files for `RUN --mount=type=secret`, by their ids: a JSON object like `{"id": {"value": "…"}}`'
    )


class NewBuild(BuildFields):
    """The text fields of the form of a Dockerfile."""

    name: Name
    dockerfile: str | None = Field(None, description="A Dockerfile; the form's other files are its context")
    image_ref: str | None = Field(None, description="In its place: the image of a registry that becomes the template")
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
    ahead: int | None = Field(description="How many builds come before this one, while it is queued")

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
            ahead=build.ahead,
        )
