"""The shapes of bodies: those that are read, and those that the documentation shows."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


WholeNumber = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore")


class VolumeMount(_Request):
    name: str
    read_only: bool = False


class CreateSandbox(_Request):
    template: str | None = Field(None, description="Name or alias of a template", examples=["code-interpreter"])
    from_snapshot: str | None = Field(None, description="Id of a snapshot; `template` is ignored then")
    ttl_seconds: WholeNumber | None = Field(None, description="Idle limit in seconds")
    persistent: StrictBool | None = Field(None, description="Exempt from the idle limit")
    metadata: dict[str, str] | None = Field(None, description="Free text; `secret.*` keys are never returned")
    volumes: list[VolumeMount] | None = None
    on_expire: str | None = Field(None, description="At the idle limit: `delete` (default) or `hibernate`")
    checkpoint_every: Number | None = Field(None, description="Seconds between automatic checkpoints, at least 1")


class ExecCommand(_Request):
    cmd: str = Field("", description="A line for `sh -c`, run as root", examples=["echo hello"])
    timeout_seconds: Number | None = Field(None, description="0 or absent: no limit")


class ReplCode(_Request):
    code: str = ""
    language: str = Field("python", description="`python`, `py`, `bash`, `sh`, `node`, `js`, `ruby`")


class CreateReplSession(_Request):
    language: str = Field("python", description="`python`, `bash` or `node`")


class RunCell(_Request):
    code: str = ""
    timeout_ms: WholeNumber | None = Field(None, description="Absent: 30000; then the cell is interrupted")
    checkpoint: StrictBool = Field(False, description="Take a checkpoint of the sandbox after the cell")


class PatchLifecycle(_Request):
    ttl_seconds: WholeNumber | None = Field(None, description="Idle limit in seconds")
    persistent: StrictBool | None = None
    on_expire: str | None = Field(None, description="At the idle limit: `delete` or `hibernate`")


class Capture(_Request):
    label: str | None = Field(None, description="Free text, at most 200 characters are kept")


class Fork(_Request):
    metadata: dict[str, str] | None = Field(None, description="Merged into the metadata of the children")
    count: WholeNumber | None = Field(None, description="How many children, 1 to 16")


class Promote(_Request):
    cleanup_siblings: StrictBool | None = Field(None, description="Delete the other children of the tree")
    tree_id: str | None = Field(None, description="Absent: the tree that the sandbox is part of")


class CreateToken(_Request):
    label: str | None = Field(None, max_length=200)
    name: str | None = Field(None, max_length=200, description="Same as `label`")
    expires_in_days: Annotated[WholeNumber, Field(ge=1, le=36500)] | None = None


class Sandbox(BaseModel):
    id: str
    template: str
    cpu: int
    memory_mb: int
    status: str
    metadata: dict[str, str]
    persistent: bool
    ttl_seconds: int
    created_at: str
    boot_ms: int | None
    boot_mode: str | None
    accelerator: str | None = Field(None, description="What runs the guest's code: `kvm` or `tcg`")
    isolation: str | None = Field(None, description="What stands between the guest and the host, in a sentence")
    from_snapshot: str | None
    on_expire: str = Field(description="What happens at the idle limit: `delete` or `hibernate`")
    expires_at: str | None = Field(description="When the idle limit is over unless it is used; null: never")
    reason: str | None = Field(None, description="Why it failed")


class ExecResult(BaseModel):
    stdout: str
    stderr: str
    exit_code: int
    duration_ms: int
    truncated: dict[str, int] | None = Field(None, description="Real sizes in bytes of streams that were cut")


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


class FileEntry(BaseModel):
    name: str
    path: str
    is_dir: bool
    size: int
    mode: str
    mtime: int


class Directory(BaseModel):
    path: str
    entries: list[FileEntry]


class Written(BaseModel):
    path: str
    bytes: int


class Lifecycle(BaseModel):
    ttl_seconds: int
    persistent: bool
    idle_seconds: int
    on_expire: str
    expires_at: str | None


class Status(BaseModel):
    status: str


class Snapshot(BaseModel):
    id: str
    sandbox_id: str
    workspace: str
    template: str
    label: str
    cpu: int
    memory_mb: int
    size_bytes: int
    dirty_bytes: int = Field(description="What was written anew for it")
    created_at: str


class Snapshots(BaseModel):
    snapshots: list[Snapshot]


class Checkpoint(BaseModel):
    id: str
    created_at: str
    label: str
    size_bytes: int
    dirty_bytes: int


class Checkpoints(BaseModel):
    checkpoints: list[Checkpoint]


class Forked(BaseModel):
    sandbox: Sandbox
    children: list[str]
    parent_id: str
    snapshot_id: str
    at: str


class ForkError(BaseModel):
    index: int
    error: str


class ForkTree(BaseModel):
    tree_id: str
    parent_id: str
    snapshot_id: str
    at: str
    children: list[Sandbox]
    errors: list[ForkError] | None = None


class Promoted(BaseModel):
    winner: str
    tree_id: str
    deleted: list[str]
    failures: dict[str, str]


class Template(BaseModel):
    name: str
    size_bytes: int
    cpu: int
    memory_mb: int
    is_global: bool
    description: str
    base: str | None
    tools: list[str]
    aliases: list[str]
    meta: dict[str, Any]


class Token(BaseModel):
    prefix: str
    name: str
    label: str
    created_at: str
    expires_at: str | None
    token: str | None = Field(None, description="The token itself; only when it is made")


class Event(BaseModel):
    time: str
    sandbox_id: str
    type: str
    payload: dict[str, Any]


class Events(BaseModel):
    events: list[Event]


class Error(BaseModel):
    error: str = Field(description="What went wrong, in a sentence")
    code: str = Field(description="Stable, for programs")
    hint: str | None = None
    field: str | None = None
    detail: Any = None


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """The part of a route's documentation that describes its JSON body."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    return {"requestBody": {"content": {"application/json": {"schema": _inline(schema, definitions)}}}}


def _inline(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inline(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inline(value, definitions) for key, value in schema.items()}
