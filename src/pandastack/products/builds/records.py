"""The records of builds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pandastack.model.webhooks import Occurrence
from pandastack.products.builds.compare import Difference
from pandastack.products.builds.spec import BuildSpec
from pandastack.recorder.messages import Refusal


class BuildStatus(StrEnum):
    """Where a build is. All but the first are final."""

    RUNNING = "running"
    DONE = "done"
    """Its artifacts exist; a verified build made the same twice."""
    DIFFERS = "differs"
    """It was built twice, and what was made differs. The artifacts are those of the first."""
    FAILED = "failed"


class FailureReason(StrEnum):
    """Why a build failed."""

    COMMAND = "command"
    """The command ended with another exit code than 0."""
    TIMEOUT = "timeout"
    ARTIFACTS = "artifacts"
    """There are none, one is missing, or they are too large or cannot be copied out."""
    LOCK = "lock"
    """The command failed after a request that got no answer, or what the lock names cannot be had."""
    INTERRUPTED = "interrupted"
    """The server ended during the build."""
    MACHINE = "machine"
    """There was no machine, or it did not do as it should."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a build made; ``size`` is in bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """A build. Times are seconds since the epoch; ``sandboxes`` are those that exist for it right now."""

    id: str
    workspace: str
    spec: BuildSpec
    template_version: str
    source_sha256: str
    source_date_epoch: int
    created_at: float
    status: BuildStatus = BuildStatus.RUNNING
    ended_at: float | None = None
    reason: FailureReason | None = None
    error: str | None = None
    exit_code: int | None = None
    log_tail: str = ""
    """The end of the log of a failed build."""
    artifacts: tuple[Artifact, ...] = ()
    artifacts_sha256: str = ""
    """That of the artifacts' archive in normal form."""
    differences: tuple[Difference, ...] = ()
    lock_sha256: str = ""
    """That of the lock that the build was held to, or has recorded."""
    refused: tuple[Refusal, ...] = ()
    """Requests that the recording proxy has refused, the first ones."""
    sandboxes: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        return self.status is not BuildStatus.RUNNING

    def told(self) -> Occurrence:
        """What webhooks are told of a build that has ended. It is the same however often it is told."""
        data: dict[str, Any] = {
            "id": self.id,
            "kind": "hermetic",
            "template": self.spec.template,
            "status": self.status,
        }
        data |= {"reason": self.reason, "error": self.error and self.error[:2000], "exit_code": self.exit_code}
        at = self.created_at if self.ended_at is None else self.ended_at
        return Occurrence(self.workspace, "build.ended", self.id, data, key="ended", at=at)

    @property
    def reproducible(self) -> bool | None:
        """Whether two builds made the same; None unless it was verified."""
        verified = self.spec.verify and self.status in (BuildStatus.DONE, BuildStatus.DIFFERS)
        return self.status is BuildStatus.DONE if verified else None


class BuildFailed(Exception):
    """Ends a build; becomes the reason in its record."""

    def __init__(self, reason: FailureReason, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.exit_code = exit_code
