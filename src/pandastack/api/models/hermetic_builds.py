"""Hermetic builds."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field

from pandastack.api.models.base import Answer, Body, Number, WholeNumber, timestamp, timestamp_or_none
from pandastack.products.builds import BuildRecord


class NewHermeticBuild(Body):
    """The field `build` of the form that starts a build."""

    command: str = Field(description="A line for the guest's shell, run in the unpacked source")
    template: str | None = Field(None, description="By default `base`")
    artifacts: list[str] = Field([], description="Paths below the source, copied to `$OUT` after the command")
    env: dict[str, str] = Field({}, description="Variables; they are in the provenance")
    source_date_epoch: WholeNumber | None = Field(
        None, description="When the guest's clock starts, in seconds; by default the time of the newest file"
    )
    cpu: Annotated[WholeNumber | None, Field(description="By default the template's")] = None
    timeout_seconds: Number | None = Field(None, description="Limit of the command; by default an hour")
    verify: bool = Field(False, description="Build twice, in machines that differ, and compare")
    record: bool = Field(False, description="Fetch through a proxy that writes a lock; without it there is no network")
    explain: str | None = Field(None, description="The template whose diffoscope says what differs, with `verify`")
    refetch: bool = Field(
        False, description="Fetch once more what the field `lock` names and the server has not stored"
    )


class RefusedRequest(Answer):
    method: str
    url: str
    reason: str


class BuildArtifact(Answer):
    path: str
    size: int
    sha256: str


class BuildDifference(Answer):
    path: str
    kind: str = Field(description="`missing`, `added`, `type`, `mode`, `target` or `content`")
    first_size: int | None
    second_size: int | None
    offset: int | None = Field(description="Of the first byte that differs, for `content`")


class HermeticBuild(Answer):
    id: str
    status: str = Field(description="`running`, `done`, `differs` or `failed`; all but the first are final")
    reason: str | None = Field(
        description="Of a failure: `command`, `timeout`, `artifacts`, `lock`, `interrupted`, `machine`"
    )
    error: str | None
    exit_code: int | None
    log_tail: str = Field(description="The end of a failed build's log")
    command: str
    template: str
    template_version: str
    source_sha256: str
    source_date_epoch: int
    verify: bool
    reproducible: bool | None = Field(description="Whether two builds made the same; null unless verified")
    artifacts: list[BuildArtifact]
    artifacts_sha256: str | None
    network: str = Field(description="`none`, `record` or `replay`")
    lock_sha256: str | None = Field(description="Of the lock that it recorded or was held to")
    refused: list[RefusedRequest] = Field(description="Requests that its proxy refused, the first 50")
    differences: list[BuildDifference] = Field(description="The first 200 paths that differ")
    created_at: str
    ended_at: str | None

    @classmethod
    def of(cls, record: BuildRecord) -> Self:
        return cls(
            id=record.id,
            status=record.status,
            reason=record.reason,
            error=record.error,
            exit_code=record.exit_code,
            log_tail=record.log_tail,
            command=record.spec.command,
            template=record.spec.template,
            template_version=record.template_version,
            source_sha256=record.source_sha256,
            source_date_epoch=record.source_date_epoch,
            verify=record.spec.verify,
            reproducible=record.reproducible,
            artifacts=[BuildArtifact.model_validate(each) for each in record.artifacts],
            artifacts_sha256=record.artifacts_sha256 or None,
            network=record.spec.network,
            lock_sha256=record.lock_sha256 or None,
            refused=[RefusedRequest.model_validate(each) for each in record.refused],
            differences=[BuildDifference.model_validate(each) for each in record.differences],
            created_at=timestamp(record.created_at),
            ended_at=timestamp_or_none(record.ended_at),
        )


class HermeticBuilds(Answer):
    builds: list[HermeticBuild]


class Provenance(Answer):
    """An in-toto Statement v1."""

    type_: str = Field(alias="_type")
    subject: list[dict[str, Any]]
    predicate_type: str = Field(alias="predicateType", description="`https://slsa.dev/provenance/v1`")
    predicate: dict[str, Any]
