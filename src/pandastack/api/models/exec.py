"""Commands."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from pandastack.api.models.base import Answer, Body, Number, omitted_if_none
from pandastack.services.processes.commands import Outcome
from pandastack.services.processes.spec import Command


class ExecCommand(Body):
    cmd: str = Field("", description="Shell command for `sh -c`, run as root", examples=["echo hello"])
    timeout_seconds: Number | None = Field(None, description="0 or absent: no limit")
    id: str | None = Field(None, description="A UUID for the command's record; absent: a new one")


class StreamedCommand(ExecCommand):
    on_disconnect: str | None = Field(None, description="If the client disconnects: `kill` (default) or `keep` it")


class CommandResult(Answer):
    stdout: str
    stderr: str
    exit_code: int
    duration_ms: int
    guest_us: int = Field(description="The guest's own measure of the duration, in microseconds")
    process_id: str
    truncated: dict[str, int] | None = omitted_if_none("Original sizes in bytes of truncated streams")

    @classmethod
    def of(cls, outcome: Outcome, command: Command) -> Self:
        """Everything except the output, which :func:`pandastack.api.buffered.outcome_response` adds."""
        return cls(
            stdout="",
            stderr="",
            exit_code=outcome.exit_code,
            duration_ms=round(outcome.duration_us / 1000),
            guest_us=outcome.duration_us,
            process_id=command.id,
            truncated=outcome.truncated or None,
        )
