"""The shapes of bodies that are read."""

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
    language: str = Field("python", description="`python`, `bash` or `node`")


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
