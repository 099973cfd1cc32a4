"""The values that the client library returns; ``from_dict`` builds them from the JSON of the HTTP API."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Required, TypedDict

from pandastack.errors import ServerError


@dataclass(frozen=True)
class CreateRetryEvent:
    """A refused create that is about to be retried; ``delay_seconds`` is the wait before that."""

    method: str
    path: str
    attempt: int
    status_code: int
    error: str
    delay_seconds: float
    elapsed_seconds: float
    retry_after_seconds: float | None = None


@dataclass
class ExecResult:
    """A command's output and how it ended; ``duration_ms`` is measured inside the sandbox."""

    stdout: str
    stderr: str
    exit_code: int
    duration_ms: int = 0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ExecResult:
        """Build from the answer of ``exec``; an older name of the exit code, ``exit``, is accepted too.

        Raises ServerError when there is no exit code: it is never guessed.
        """
        exit_code = data.get("exit_code", data.get("exit"))
        if exit_code is None:
            raise ServerError("the server's answer to exec has no exit code")
        return cls(
            stdout=data.get("stdout") or "",
            stderr=data.get("stderr") or "",
            exit_code=int(exit_code),
            duration_ms=int(data.get("duration_ms") or 0),
        )


@dataclass
class ProcessInfo:
    """A process of a sandbox. ``exit_code`` is None while it runs; 128 + ``signal`` when it was killed.

    ``stdout`` and ``stderr`` are offsets: of the first retained byte, and after the last byte written.
    """

    id: str
    pid: int
    cmd: str
    status: str
    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    cancelled: bool = False
    background: bool = False
    inherited: bool = False
    pty: bool = False
    user: str = "root"
    started_at: str | None = None
    duration_ms: int = 0
    usage: dict[str, int] | None = None
    stdout: tuple[int, int] = (0, 0)
    stderr: tuple[int, int] = (0, 0)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProcessInfo:
        """Build from the server's record."""
        known = {each.name for each in fields(cls)} - {"stdout", "stderr"}
        values = {key: value for key, value in data.items() if key in known}
        for name, extent in (data.get("output") or {}).items():
            if name in ("stdout", "stderr"):
                values[name] = (int(extent["start"]), int(extent["end"]))
        return cls(**values)


@dataclass(frozen=True)
class EgressDecision:
    """One decision about what a sandbox wanted to reach; ``rule`` decided, ``via`` is what asked (``dns``, ``tls``, …).

    ``seq`` increases from record to record. ``name`` or ``address`` is empty, and ``port`` 0, where there was none.
    ``how_to_allow`` is the rule that would allow what was denied; empty if none can.
    """

    seq: int
    time: str | None
    allowed: bool
    via: str
    name: str
    address: str
    port: int
    rule: str
    reason: str
    dropped: int = 0
    how_to_allow: str = ""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EgressDecision:
        """Build from one record."""
        return cls(**{each.name: data[each.name] for each in fields(cls) if each.name in data})


@dataclass
class FileInfo:
    """A file or directory inside a sandbox; ``size`` in bytes, ``mtime`` in seconds since the epoch."""

    name: str
    path: str
    is_dir: bool
    size: int = 0
    mode: str = ""
    mtime: int = 0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], parent: str = "") -> FileInfo:
        """Build from one entry; if the server omits ``path``, it is the name below ``parent``."""
        name = str(data["name"])
        return cls(
            name=name,
            path=data.get("path") or posixpath.join(parent, name),
            is_dir=bool(data.get("is_dir")),
            size=int(data.get("size") or 0),
            mode=str(data.get("mode") or ""),
            mtime=int(data.get("mtime") or 0),
        )


@dataclass(frozen=True)
class FileMatch:
    """A match of a search: a file, or one of its lines; ``line`` is the line number, from 1."""

    path: str
    line: int | None = None
    text: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FileMatch:
        """Build from one match of the server's answer."""
        return cls(str(data["path"]), data.get("line"), data.get("text"))


@dataclass
class Template:
    """A template, from which sandboxes are created."""

    name: str
    rootfs_path: str | None = None
    size_bytes: int | None = None
    cpu: int | None = None
    memory_mb: int | None = None
    is_global: bool | None = None
    workspace: str | None = None
    label: str | None = None
    description: str | None = None
    category: str | None = None
    base: str | None = None
    tools: list[str] | None = None
    meta: dict[str, Any] | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Template:
        """Build from the server's record; keys that this version does not know are left out."""
        known = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass(frozen=True)
class TemplateBuild:
    """A build of a template; ``status`` is ``queued``, ``running``, ``done`` or ``failed``, the last two are final."""

    id: str
    name: str
    status: str
    error: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    bytes: int | None = None
    version: str | None = None
    ahead: int | None = None
    """How many builds come before this one, while it is queued."""

    @property
    def is_done(self) -> bool:
        return self.status == "done"

    @property
    def is_failed(self) -> bool:
        return self.status == "failed"

    @property
    def is_terminal(self) -> bool:
        return self.is_done or self.is_failed

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TemplateBuild:
        """Build from the server's record; keys that this version does not know are left out."""
        known = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass(frozen=True)
class BuildEvent:
    """One report of a build: ``step`` (``title``), ``line`` (``text``), ``progress`` (``done`` and ``total`` bytes),
    ``step_ended`` (``title``, ``seconds``, ``note``), ``dropped`` (``count``), ``ended`` (the build)."""

    name: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Secret:
    """A secret of the workspace, without its value. With ``hosts``, sandboxes get its ``placeholder``; without, its
    value in their environment."""

    name: str
    hosts: tuple[str, ...] = ()
    placeholder: str | None = None
    created_at: str | None = None
    updated_at: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Secret:
        """Build from the server's record; keys that this version does not know are left out."""
        known = {each.name for each in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        return cls(**{**values, "hosts": tuple(map(str, data.get("hosts") or ()))})


@dataclass(frozen=True)
class Registry:
    """A registry of images that the workspace has credentials for, without the password."""

    host: str
    username: str = ""
    created_at: str | None = None
    updated_at: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Registry:
        """Build from the server's record; keys that this version does not know are left out."""
        known = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


class SshKey(TypedDict, total=False):
    """A public key that opens the workspace's sandboxes: a dictionary, with ``public_key`` as ``TYPE BASE64``."""

    id: Required[str]
    name: str
    fingerprint: str
    public_key: str
    created_at: str
    last_used_at: str | None


class Workspace(TypedDict, total=False):
    """The workspace of the token. ``previews`` is ``open`` or ``private``."""

    id: Required[str]
    created_at: str
    previews: str


class SshDoor(TypedDict):
    """Where SSH clients connect, and the server's public key (``ssh-ed25519 AAAA…``)."""

    port: int
    host_key: str


class Snapshot(TypedDict, total=False):
    """A captured sandbox that others can be created from: a dictionary, with ``size_bytes`` in bytes."""

    id: Required[str]
    sandbox_id: str
    template: str
    size_bytes: int
    created_at: str


class VolumeHolder(TypedDict):
    """A sandbox that has a volume, and the path that it is mounted at."""

    sandbox_id: str
    path: str
    read_only: bool


class Volume(TypedDict, total=False):
    """A disk that outlives sandboxes: a dictionary. ``size_bytes`` is what it takes on the host's disk; ``kind`` is
    ``volume`` or ``snapshot``."""

    name: Required[str]
    size_mb: Required[int]
    created_at: str
    kind: str
    state: str
    attached_to: list[VolumeHolder]
    size_bytes: int


class Database(TypedDict, total=False):
    """A PostgreSQL database: a dictionary. ``status`` is ``provisioning``, ``running``, ``hibernated``, ``waking`` or
    ``failed``, then with ``error``; lists have no ``password``, ``connection_url`` and ``broker_token``."""

    id: Required[str]
    status: Required[str]
    template: str
    label: str
    created_at: str
    host: str
    port: int
    database: str
    username: str
    password: str
    connection_url: str
    broker_url: str
    broker_token: str
    error: str
    failover_available: bool
    failover_reason: str
    sandbox_id: str
    size: str
    disk_gb: int
    disk_state: str
    disk_used_pct: float
    cloned_from: str
    target_time: str
    always_on: bool
    restore_window: dict[str, str]
    archive: dict[str, Any]


class DatabaseBackups(TypedDict, total=False):
    """What a database can be restored from: ``windows`` of times, each with ``earliest`` and ``latest``, its ``bases``
    with ``created_at`` and ``size_bytes``, oldest first, and its ``archive``: ``state``, ``as_of``, ``size_bytes``,
    ``error``. ``drill``: the last restore that the server has tried out, with ``at``, ``seconds`` and ``error``."""

    archive: Required[dict[str, Any]]
    windows: Required[list[dict[str, str]]]
    bases: Required[list[dict[str, Any]]]
    drill: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A state in the timeline of a sandbox; ``dirty_bytes`` is the size of the data written for it.

    ``commands`` are the last of the ``command_count`` commands since the previous checkpoint, shortened to one line
    each; ``automatic`` ones were taken by the server.
    """

    id: str
    created_at: str | None = None
    label: str | None = None
    size_bytes: int = 0
    dirty_bytes: int = 0
    automatic: bool = False
    commands: tuple[str, ...] = ()
    command_count: int = 0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Checkpoint:
        """Build from the server's record."""
        return cls(
            id=str(data["id"]),
            created_at=data.get("created_at"),
            label=data.get("label"),
            size_bytes=int(data.get("size_bytes") or 0),
            dirty_bytes=int(data.get("dirty_bytes") or 0),
            automatic=bool(data.get("automatic")),
            commands=tuple(map(str, data.get("commands") or ())),
            command_count=int(data.get("command_count") or 0),
        )
