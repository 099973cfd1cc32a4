"""The operator's settings for the control plane, from environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from pandastack.errors import BadRequestError
from pandastack.model.forwarded import Network, parse_networks

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Budget:
    """A number of bytes, or a share (0 to 1) of a whole."""

    fixed: int | None = None
    share: float = 0.0

    def bytes_of(self, whole: int) -> int:
        """The budget in bytes when there are ``whole`` bytes in all."""
        return int(whole * self.share) if self.fixed is None else self.fixed


class Networks(tuple[Network, ...]):
    """IP networks; a single address is a network of its own."""

    __slots__ = ()


_NOBODY = Networks()


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field ``name`` is read from ``PANDASTACK_NAME``. Times in seconds, sizes in bytes.

    All are positive; a setting may be 0 only where its description says so.
    """

    default_ttl_seconds: int = 300
    """Idle limit of a sandbox that was created without one."""
    max_ttl_seconds: int = 2**31 - 1
    stop_seconds: float = 30.0
    """How long a stopping server hibernates one sandbox after another; those in progress then may still finish."""
    reaper_interval_seconds: float = 5.0
    """A TTL of 0 means this; also the pause before a failed deletion is tried again."""
    max_command_seconds: float = 7 * 24 * 3600.0
    """The largest ``timeout_seconds`` of a command."""
    max_output_bytes: int = 16 * MIB
    """How much of each output stream a synchronous exec returns; less if the output more than doubles as JSON."""
    max_sandbox_buffer_bytes: int = 64 * MIB
    """How much output of one sandbox may wait in memory until its answer is complete and has been fetched."""
    max_buffer_bytes: int = 256 * MIB
    """The same for all sandboxes together."""
    kept_output_bytes: int = 64 * MIB
    """How much of each output stream of a process the guest retains on its disk: the newest bytes."""
    max_processes: int = 100
    """Recorded processes that may run in a sandbox at once."""
    max_streams: int = 100
    """Commands, views and terminals that may be open on a sandbox at once."""
    max_scrollback_bytes: int = MIB
    """The most earlier output of a terminal that a viewer may ask for."""
    terminal_linger_seconds: float = 300.0
    """How long a terminal keeps running after its last viewer's connection broke."""
    lsp_idle_seconds: float = 600.0
    """Silence after which the client of a language server is disconnected."""
    max_connections: int = 4096
    """Connections that the server holds at once; fewer when the process may not open that many files."""
    max_json_bytes: int = 8 * MIB
    max_file_bytes: int = 32 * MIB
    max_tar_bytes: int = 1024 * MIB
    """The largest archive that is unpacked into a sandbox."""
    max_tree_seconds: float = 600.0
    """How long the guest may take to pack, unpack, move or search a tree."""
    keep_alive_seconds: float = 10.0
    """Longest silence on a stream of events; clients give up after 15 s."""
    idle_after: float = 300.0
    """Idle time after which a persistent sandbox is hibernated; 0: never."""
    max_checkpoints: int = 10
    """The most checkpoints of a sandbox; the oldest make room for new ones."""
    snapshot_budget: Budget = Budget(share=0.2)
    """Storage for the automatic checkpoints of all sandboxes: bytes, or with ``%`` a share of the engine's storage."""
    mcp_calls_per_minute: int = 60
    """How many tool calls of agents a workspace may make over HTTP."""
    mcp_sandbox_calls_per_minute: int = 600
    """How many of them about one sandbox, through that sandbox's own tools."""
    requests_per_minute: int = 12_000
    """How many requests a token may make; also the largest burst."""
    failed_logins_per_minute: int = 60
    """How many requests without a valid token a peer may make."""
    secret_key_file: str = ""
    """The file of the keys that secrets are encrypted with; by default `secrets.key` beside the database's file."""
    preview_host_suffix: str = "localhost"
    """The domains below which previews have host names, separated by commas; the first one is shown."""
    previews: str = "open"
    """Who may see previews by host name: ``open`` for anyone who knows the name, ``private`` for bearers of a token."""
    preview_wakes_per_minute: int = 10
    """How often requests without credentials may wake a sandbox; those with a token are not counted."""
    public_base_url: str = ""
    """The address of the API in the links that it makes; empty: the one of the request."""
    gateway_certificate: str = ""
    """A PEM file with the gateway's certificate chain, read again when it changes; empty: it makes its own."""
    gateway_key: str = ""
    """The PEM file of its key; empty: it is in the same file."""
    trusted_proxies: Networks = _NOBODY
    """Reverse proxies whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed."""
    max_volumes: int = 100
    """How many volumes a workspace may have, snapshots of volumes included."""
    max_volume_mb: int = 1024 * 1024
    """How many MiB the volumes of a workspace may have together, with the clones that its sandboxes have of some."""
    max_databases: int = 20
    """How many databases a workspace may have."""
    database_backups: str = ""
    """Where the databases' archives are: a directory, by default `backups` beside the database's file, or
    ``s3://BUCKET/PREFIX``; ``none``: none are kept."""
    database_base_seconds: float = 24 * 3600.0
    """How old the newest base backup of a database gets before it gets another one."""
    database_retention_seconds: float = 7 * 24 * 3600.0
    """How far back a database can be restored."""
    database_drill_seconds: float = 7 * 24 * 3600.0
    """How often the archive of a database is restored to try it out; 0: never."""
    database_backups_bytes: int = 100 * 1024 * MIB
    """What the archives of all databases may take; the oldest backups make room for new ones."""
    database_metrics_seconds: float = 60.0
    """How often the numbers of databases that run are taken for the metrics; 0: never."""
    max_schedules: int = 100
    """How many schedules a workspace may have."""
    max_functions: int = 100
    """How many functions a workspace may have."""
    max_function_runs: int = 40
    """How many runs of functions a workspace may have at once."""
    max_kept_runs: int = 5
    """How many machines of failed runs of functions a workspace may keep at once."""
    function_retry_seconds: float = 2.0
    """The pause before the first retry of an asynchronous run; each further one is four times as long."""
    kept_function_versions: int = 3
    """How many versions of a function are kept, with the one that serves; the oldest make room for new ones."""
    kept_function_mb: int = 8192
    """How much the versions of a function may take together; the oldest make room, but never the one that serves."""
    kept_function_runs: int = 1000
    """How many runs of a function are kept; the oldest make room for new ones."""
    function_warm_seconds: int = 600
    """How long after a deploy or a run a machine waits for the next run of a function, if the engine has room; 0: only
    after runs that follow each other."""
    functions_dir: str = ""
    """Where the code of functions is kept; by default `functions` beside the database's file."""
    max_builds: int = 2
    """How many hermetic builds a workspace may run at once."""
    kept_builds: int = 20
    """How many ended builds of a workspace are kept, with their artifacts; the oldest make room for new ones."""
    max_artifacts_bytes: int = 1024 * MIB
    """How much a build may copy out."""
    max_fetched_bytes: int = 4096 * MIB
    """How much builds of a workspace may fetch, each, and how much of what they fetched is kept for their locks."""
    fetch_networks: Networks = _NOBODY
    """Private networks from which builds may fetch nevertheless: those of internal mirrors."""
    builds_dir: str = ""
    """Where builds are kept; by default `builds` beside the database's file."""
    max_runner_pools: int = 20
    """How many runner pools a workspace may have."""
    max_waiting_jobs: int = 1000
    """How many jobs of a workspace may wait or run at once."""
    kept_jobs: int = 200
    """How many ended jobs of a workspace are kept, with logs and artifacts; the oldest make room for new ones."""
    kept_job_checkpoints: int = 20
    """How many checkpoints of ended jobs a workspace has; the oldest make room for new ones."""
    jobs_dir: str = ""
    """Where logs and artifacts of jobs are kept; by default `jobs` beside the database's file."""
    max_webhooks: int = 20
    """How many endpoints of webhooks a workspace may have."""
    webhook_networks: Networks = _NOBODY
    """Private networks to which webhooks may be sent nevertheless, there also by plain HTTP."""
    webhook_retry_seconds: float = 5.0
    """The pause before a webhook is sent a second time; later ones are multiples of it, up to 7200."""
    github_api_url: str = "https://api.github.com"
    """The REST API of GitHub, or of a GitHub Enterprise Server: its address with ``/api/v3``."""
    github_webhook_secret: str = ""
    """The secret of the server's own webhook at GitHub; empty: it has none, and workspaces have theirs."""
    allowed_origins: str = ""
    """Web pages that may use a server on loopback: origins, separated by commas."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Raises :class:`BadRequestError` that names the variable whose value makes no sense."""
        kinds = get_type_hints(cls)
        if env.get("PANDASTACK_PREVIEWS", "open") not in ("open", "private"):
            raise BadRequestError("PANDASTACK_PREVIEWS must be open or private", field="PANDASTACK_PREVIEWS")
        given = {field.name: f"PANDASTACK_{field.name.upper()}" for field in fields(cls)}
        return cls(**{name: _value(key, env[key], kinds[name]) for name, key in given.items() if env.get(key)})


_MAY_BE_ZERO = (
    "PANDASTACK_IDLE_AFTER",
    "PANDASTACK_SNAPSHOT_BUDGET",
    "PANDASTACK_DATABASE_DRILL_SECONDS",
    "PANDASTACK_DATABASE_METRICS_SECONDS",
)


def _value(key: str, text: str, kind: type[int] | type[float] | type[Budget] | type[str] | type[Networks]) -> Any:
    if issubclass(kind, str):
        return text
    if issubclass(kind, Networks):
        try:
            return Networks(parse_networks(text))
        except ValueError as error:
            message = f"{key} must be addresses and networks, separated by commas: {error}"
            raise BadRequestError(message, field=key) from error
    if not issubclass(kind, Budget):
        return _number(key, text, kind)
    if text.endswith("%"):
        return Budget(share=_at_most(key, text, _number(key, text[:-1], float), 100) / 100)
    return Budget(fixed=_number(key, text, int))


def _at_most(key: str, text: str, value: float, most: float) -> float:
    if value > most:
        raise BadRequestError(f"{key} must be at most {most:g} %, not {text!r}", field=key)
    return value


def _number(key: str, text: str, kind: type[int] | type[float]) -> Any:
    try:
        value: int | float = kind(text)
    except ValueError:
        value = -1
    if value == 0 and key in _MAY_BE_ZERO:
        return value
    if not 0 < value < float("inf"):
        raise BadRequestError(f"{key} must be a positive number, not {text!r}", field=key)
    return value
