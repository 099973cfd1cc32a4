"""The shapes of bodies about code that is run by an interpreter."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from pandastack.api.models import WholeNumber


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ReplCode(_Request):
    code: str = ""
    language: str = Field("python", description="`python`, `py`, `bash`, `sh`, `node`, `js`, `ruby`")


class CreateReplSession(_Request):
    language: str = Field("python", description="`python` or `bash`")


class RunCell(_Request):
    code: str = ""
    timeout_ms: WholeNumber | None = Field(None, description="Absent: 30000; then the cell is interrupted")
    checkpoint: StrictBool = Field(False, description="Take a checkpoint of the sandbox after the cell")


class ReplOutcome(BaseModel):
    language: str
    stdout: str
    stderr: str
    exit_code: int
    duration_ms: int


class ReplSession(BaseModel):
    id: str
    session_id: str
    sandbox_id: str
    language: str
    created_at: str
    cells: int


class Execution(BaseModel):
    stdout: str
    stderr: str
    exit: int
    exit_code: int
    error: str | None
    results: list[dict[str, str]] = Field(description="MIME bundles in order; binary data is base64, JSON serialised")
    duration_ms: int
    cells: int
    restarted: bool = Field(description="The interpreter has ended: the state of the session is lost")
    checkpoint_id: str | None = None


class Variable(BaseModel):
    name: str
    type: str
    shape: list[int] | None
    repr: str


class Variables(BaseModel):
    variables: list[Variable]


class Interrupted(BaseModel):
    interrupted: bool = Field(description="False: no cell was running")
