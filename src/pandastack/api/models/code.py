"""Code in sandboxes: one piece at a time, or cells in sessions."""

from __future__ import annotations

from typing import Self

from pydantic import Field, StrictBool

from pandastack.api.models.base import Answer, Body, WholeNumber, omitted_if_none, timestamp
from pandastack.services.code.guest_answers import Session
from pandastack.services.code.sessions import Ran
from pandastack.services.processes.commands import Outcome


class ReplCode(Body):
    code: str = ""
    language: str = Field("python", description="`python`, `py`, `bash`, `sh`, `node`, `js`, `ruby`")


class ReplOutcome(Answer):
    language: str
    stdout: str
    stderr: str
    exit_code: int
    duration_ms: int

    @classmethod
    def of(cls, language: str, outcome: Outcome) -> Self:
        """Everything except the output, which :func:`pandastack.api.buffered.outcome_response` adds."""
        return cls(
            language=language,
            stdout="",
            stderr="",
            exit_code=outcome.exit_code,
            duration_ms=round(outcome.duration_us / 1000),
        )


class CreateReplSession(Body):
    language: str = Field("python", description="`python`, `bash` or `node`")


class ReplSession(Answer):
    id: str
    session_id: str = Field(description="The same as `id`")
    sandbox_id: str
    language: str
    created_at: str
    cells: int = Field(description="Number of cells run so far")

    @classmethod
    def of(cls, session: Session, sandbox_id: str) -> Self:
        return cls(
            id=session.id,
            session_id=session.id,
            sandbox_id=sandbox_id,
            language=session.language,
            created_at=timestamp(session.created_at),
            cells=session.cells,
        )


class RunCell(Body):
    code: str = ""
    timeout_ms: WholeNumber | None = Field(None, description="Time until the cell is interrupted; absent: 30000")
    checkpoint: StrictBool = Field(False, description="Take a checkpoint of the sandbox after the cell")


class Execution(Answer):
    stdout: str
    stderr: str
    exit: int
    exit_code: int = Field(description="The same as `exit`")
    error: str | None
    results: list[dict[str, str]] = Field(description="MIME bundles in order; binary data is base64, JSON serialised")
    duration_ms: int
    cells: int
    restarted: bool = Field(description="The interpreter was replaced: the state of the session is lost")
    checkpoint_id: str | None = omitted_if_none("The requested checkpoint")

    @classmethod
    def of(cls, ran: Ran) -> Self:
        """The outcome of a cell."""
        execution = ran.execution
        return cls(
            stdout=execution.stdout,
            stderr=execution.stderr,
            exit=execution.exit,
            exit_code=execution.exit,
            error=execution.error,
            results=execution.results,
            duration_ms=execution.duration_ms,
            cells=execution.cells,
            restarted=execution.restarted,
            checkpoint_id=ran.checkpoint_id,
        )


class Variable(Answer):
    name: str
    type: str
    shape: list[int] | None
    repr: str


class Variables(Answer):
    variables: list[Variable]


class Interrupted(Answer):
    interrupted: bool = Field(description="False: no cell was running")


class LspLanguages(Answer):
    supported: list[str]
    note: str
