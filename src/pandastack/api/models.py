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
    checkpoint_every: Number | None = Field(
        None, description="Seconds between automatic checkpoints, at least 1; 0: off"
    )
    checkpoint_after_exec: StrictBool | None = Field(None, description="Take a checkpoint after each command")


class ExecCommand(_Request):
    cmd: str = Field("", description="A line for `sh -c`, run as root", examples=["echo hello"])
    timeout_seconds: Number | None = Field(None, description="0 or absent: no limit")

    id: str | None = Field(None, description="A UUID for the record of it; absent: one is made")


class StreamedCommand(ExecCommand):
    on_disconnect: str | None = Field(None, description="`kill` (default) or `keep`: what becomes of it then")


class StartProcess(_Request):
    cmd: str = Field("", description="A line for `sh -c`", examples=["make test"])
    id: str | None = Field(None, description="A UUID; absent: one is made")
    background: StrictBool | None = Field(None, description="Does not keep the sandbox from being idle")
    cwd: str | None = None
    env: dict[str, str] | None = None
    user: str | None = Field(None, description="Name or `uid:gid`; default root")
    stdin: StrictBool | None = Field(None, description="Keep standard input open for `…/stdin`; else it is empty")
    pty: StrictBool | None = Field(None, description="With a terminal of its own")
    rows: WholeNumber | None = None
    cols: WholeNumber | None = None
    timeout_seconds: Number | None = Field(None, description="0 or absent: no limit")


class SignalProcess(_Request):
    signal: int | str = Field("TERM", description="Name or number")


class ResizeTerminal(_Request):
    rows: WholeNumber = 0
    cols: WholeNumber = 0


class WaitProcess(_Request):
    timeout_seconds: Number | None = Field(None, description="How long to wait; default 25, at most 3600")


class ReplCode(_Request):
    code: str = ""
    language: str = Field("python", description="`python`, `py`, `bash`, `sh`, `node`, `js`, `ruby`")


class CreateReplSession(_Request):
    language: str = Field("python", description="`python` or `bash`")


class RunCell(_Request):
    code: str = ""
    timeout_ms: WholeNumber | None = Field(None, description="Absent: 30000; then the cell is interrupted")
    checkpoint: StrictBool = Field(False, description="Take a checkpoint of the sandbox after the cell")


class PatchLifecycle(_Request):
    ttl_seconds: WholeNumber | None = Field(None, description="Idle limit in seconds")
    persistent: StrictBool | None = None
    on_expire: str | None = Field(None, description="At the idle limit: `delete` or `hibernate`")
    checkpoint_every: Number | None = Field(None, description="Seconds between checkpoints, at least 1; 0 or null: off")
    checkpoint_after_exec: StrictBool | None = Field(None, description="Take a checkpoint after each command")


class Capture(_Request):
    label: str | None = Field(None, description="Free text, at most 200 characters are kept")


class Fork(_Request):
    metadata: dict[str, str] | None = Field(None, description="Merged into the metadata of the children")
    count: WholeNumber | None = Field(None, description="How many children, 1 to 16")


class Promote(_Request):
    cleanup_siblings: StrictBool | None = Field(None, description="Delete the other children of the tree")
    tree_id: str | None = Field(None, description="Absent: the tree that the sandbox is part of")


class Mkdir(_Request):
    path: str = Field("", description="An absolute path")
    mode: str | None = Field(None, description="Octal digits", examples=["0755"])


class Chmod(_Request):
    path: str = Field("", description="An absolute path")
    mode: str = Field("", description="Octal digits", examples=["0644"])
    recursive: StrictBool | None = Field(None, description="Everything below a directory, too")


class Move(_Request):
    source: str = Field("", alias="from", description="An absolute path")
    to: str = Field("", description="Its new one; missing directories are made")
    overwrite: StrictBool | None = Field(None, description="Replace what is there already")


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
    process_id: str


class Extent(BaseModel):
    start: int = Field(description="Offset of the first byte that is kept")
    end: int = Field(description="Bytes written in all")


class ProcessUsage(BaseModel):
    cpu_user_ms: int
    cpu_system_ms: int
    peak_rss_kb: int
    read_bytes: int
    written_bytes: int


class Process(BaseModel):
    id: str
    pid: int
    cmd: str
    cmd_truncated: bool
    user: str
    status: str = Field(description="`running` or `exited`")
    exit_code: int | None
    signal: int | None
    timed_out: bool
    cancelled: bool
    inherited: bool = Field(description="It began in the sandbox that this one was forked from")
    background: bool
    pty: bool
    rows: int | None
    cols: int | None
    stdin_open: bool
    started_at: str
    duration_ms: int
    timeout_seconds: float | None
    usage: ProcessUsage | None = Field(description="Once it has exited")
    output: dict[str, Extent]


class Retention(BaseModel):
    records: int = Field(description="Exited processes that are remembered at the most")
    bytes: int = Field(description="Output of exited processes that is kept at the most")
    age_seconds: int
    bytes_per_stream: int
    forgotten: int = Field(description="Records that had to make room so far")


class Processes(BaseModel):
    processes: list[Process]
    retention: Retention


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


class Unpacked(BaseModel):
    path: str
    members: int
    skipped: int = Field(description="Links that lead out and were left out")
    bytes: int


class Match(BaseModel):
    path: str
    line: int | None = Field(None, description="Number of the line, from 1")
    text: str | None = Field(None, description="The line, at most 1000 characters of it")


class Found(BaseModel):
    path: str
    matches: list[Match]
    truncated: bool = Field(description="There are more")


class Lifecycle(BaseModel):
    ttl_seconds: int
    persistent: bool
    idle_seconds: int
    on_expire: str
    expires_at: str | None
    checkpoint_every: float | None
    checkpoint_after_exec: bool


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
    automatic: bool = Field(description="Taken by the server, not asked for")
    commands: list[str] = Field(description="The last that ran since the checkpoint before, shortened; oldest first")
    command_count: int = Field(description="How many ran since then")


class Checkpoints(BaseModel):
    checkpoints: list[Checkpoint]


class FileState(BaseModel):
    kind: str
    size: int = Field(description="Bytes; 0 for what is no file")
    mode: str
    uid: int
    gid: int
    mtime: float
    target: str | None = Field(None, description="Of a link")


class FileChange(BaseModel):
    path: str = Field(description="Bytes that are no UTF-8 are written `\\xNN`")
    kind: str = Field(description="`file`, `directory`, `link`, `device`, `fifo` or `socket`")
    change: str = Field(description="`added`, `removed` or `changed`")
    what: list[str] = Field(description="Of a changed one: `kind`, `content`, `target`, `device`, `mode`, `owner`")
    before: FileState | None
    after: FileState | None
    unread: bool | None = Field(None, description="Same size, but there was no time to compare the contents")
    patch: str | None = Field(None, description="Unified diff")


class LanguageServers(BaseModel):
    supported: list[str]
    note: str


class Diff(BaseModel):
    from_: str = Field(alias="from")
    to: str
    added: int
    removed: int
    changed: int
    changes: list[FileChange] = Field(description="By path")
    truncated: bool = Field(description="There are more changes than are listed")


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
