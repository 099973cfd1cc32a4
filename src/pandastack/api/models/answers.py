"""The shapes of answers: the documentation shows them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


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
