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


class ExecCommand(_Request):
    cmd: str = Field("", description="A line for `sh -c`, run as root", examples=["echo hello"])
    timeout_seconds: Number | None = Field(None, description="0 or absent: no limit")


class PatchLifecycle(_Request):
    ttl_seconds: WholeNumber | None = Field(None, description="Idle limit in seconds")
    persistent: StrictBool | None = None


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
    reason: str | None = Field(None, description="Why it failed")


class ExecResult(BaseModel):
    stdout: str
    stderr: str
    exit_code: int
    duration_ms: int
    truncated: dict[str, int] | None = Field(None, description="Real sizes in bytes of streams that were cut")


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
