"""The tables of the control plane.

One schema for SQLite and PostgreSQL. Times are seconds since the epoch (UTC, float); every record carries the
workspace that owns it. ``store/migrations`` builds exactly this schema, and a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
)

from pandastack.model.node import LOCAL_NODE

DEFAULT_WORKSPACE = "default"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("created_at", Double, nullable=False),
    Column("previews", String(16), nullable=False, server_default="open"),
)

sandboxes = Table(
    "sandboxes",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("template", String(128), nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", Text, nullable=True),
    Column("cpu", Integer, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("disk_mb", Integer, nullable=False, server_default="0"),
    Column("boot_ms", Integer, nullable=True),
    Column("boot_mode", String(32), nullable=True),
    Column("metadata", JSON, nullable=False),
    Column("persistent", Boolean, nullable=False),
    Column("ttl_seconds", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("last_active_at", Double, nullable=False),
    Column("from_snapshot", String(36), nullable=True),
    Column("on_expire", String(16), nullable=True),
    Column("checkpoint_every", Double, nullable=True),
    Column("checkpoint_after_exec", Boolean, nullable=False, server_default=false()),
    Column("node", String(64), nullable=False, server_default=LOCAL_NODE),
    Column("max_lifetime_seconds", Integer, nullable=True),
    Column("wake_at_start", Boolean, nullable=False, server_default=false()),
    Column("on_memory_loss", String(16), nullable=True),
    Column("memory_lost_at", Double, nullable=True),
    Column("memory_lost_reason", Text, nullable=True),
    Column("network", JSON(none_as_null=True), nullable=True),
    Column("volumes", JSON, nullable=False, server_default="[]"),
    Column("product", String(16), nullable=True),
    Column("always_on", Boolean, nullable=False, server_default=false()),
    Index(None, "workspace", "created_at"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("sandbox_id", String(36), ForeignKey("sandboxes.id", ondelete="CASCADE"), nullable=False),
    Column("time", Double, nullable=False),
    Column("type", String(64), nullable=False),
    Column("payload", JSON, nullable=False),
    Index(None, "sandbox_id", "id"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("sandbox_id", String(36), nullable=False),  # no foreign key: a snapshot outlives its source
    Column("template", String(128), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("label", Text, nullable=False),
    Column("cpu", Integer, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("dirty_bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("automatic", Boolean, nullable=False, server_default=false()),
    Column("commands", JSON, nullable=False, server_default="[]"),
    Column("command_count", Integer, nullable=False, server_default="0"),
    Column("node", String(64), nullable=False, server_default=LOCAL_NODE),
    Column("volumes", JSON, nullable=False, server_default="[]"),
    Index(None, "workspace", "created_at"),
    Index(None, "sandbox_id"),
)

volumes = Table(
    "volumes",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("size_mb", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("node", String(64), nullable=False, server_default=LOCAL_NODE),
    Index(None, "workspace", "name", unique=True),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("prefix", String(16), nullable=False, unique=True),
    Column("label", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=True),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("token", String(16), primary_key=True),  # what is shown of it
    Column("key", String(255), primary_key=True),
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("object_id", String(36), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("status", Integer, nullable=True),
    Column("answer", LargeBinary, nullable=True),
    Index(None, "created_at"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("workspace", String(64), ForeignKey("workspaces.id"), primary_key=True),
    Column("owner", String(36), primary_key=True),  # the sandbox that it belongs to; empty: the workspace
    Column("name", String(256), primary_key=True),
    Column("sandbox_id", String(36), ForeignKey("sandboxes.id", ondelete="CASCADE"), nullable=True),  # the same
    Column("placeholder", String(64), nullable=False),
    Column("hosts", JSON, nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Index(None, "sandbox_id"),
)

ssh_keys = Table(
    "ssh_keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("member", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("last_used_at", Double, nullable=True),
    Index(None, "workspace", "fingerprint", unique=True),
)

preview_tokens = Table(
    "preview_tokens",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("sandbox_id", String(36), ForeignKey("sandboxes.id", ondelete="CASCADE"), nullable=False),
    Column("prefix", String(16), nullable=False),
    Column("port", Integer, nullable=False),
    Column("paths", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Index(None, "sandbox_id"),
)

databases = Table(
    "databases",
    metadata,
    Column("id", String(36), primary_key=True),  # also that of its sandbox
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("label", Text, nullable=False),
    Column("size", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("always_on", Boolean, nullable=False, server_default=false()),
    Column("created_at", Double, nullable=False),
    Column("cloned_from", String(36), nullable=True),
    Column("error", Text, nullable=True),
    Column("restored", Boolean, nullable=False, server_default=false()),
    Column("target_time", Double, nullable=True),
    Index(None, "workspace", "created_at"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("name", String(128), nullable=False),
    Column("function_id", String(64), nullable=False),
    Column("cron", String(256), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("overlap", String(16), nullable=False),
    Column("catchup", String(16), nullable=False),
    Column("jitter_seconds", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("last_run_at", Double, nullable=True),
    Column("next_run_at", Double, nullable=True),
    Index(None, "workspace", "name", unique=True),
)

schedule_runs = Table(
    "schedule_runs",
    metadata,
    Column("id", String(36), primary_key=True),  # also that of the function's run
    Column("schedule_id", String(36), ForeignKey("schedules.id", ondelete="CASCADE"), nullable=False),
    Column("workspace", String(64), nullable=False),
    Column("function_id", String(64), nullable=False),
    Column("nominal_at", Double, nullable=False),
    Column("status", String(16), nullable=False),
    Column("version", Integer, nullable=True),
    Column("reason", Text, nullable=True),
    Column("triggered", Boolean, nullable=False),
    Column("started_at", Double, nullable=True),
    Column("ended_at", Double, nullable=True),
    Index(None, "schedule_id", "nominal_at", unique=True),
)

functions = Table(
    "functions",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("name", String(128), nullable=False),
    Column("runtime", String(16), nullable=False),
    Column("entrypoint", Text, nullable=False),
    Column("template", String(128), nullable=False),
    Column("public", Boolean, nullable=False, server_default=false()),
    Column("state", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("last_version", Integer, nullable=False),
    Column("timeout_seconds", Double, nullable=False),
    Column("memory_mb", Integer, nullable=True),
    Column("concurrency", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Index(None, "workspace", "name", unique=True),
)

function_versions = Table(
    "function_versions",
    metadata,
    Column("function_id", String(36), ForeignKey("functions.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("snapshot_id", String(36), nullable=False),
    Column("entrypoint", Text, nullable=False),
    Column("template", String(128), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("code_size", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("deploy_ms", Double, nullable=False),
)

function_runs = Table(
    "function_runs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("function_id", String(36), ForeignKey("functions.id", ondelete="CASCADE"), nullable=False),
    Column("version", Integer, nullable=True),
    Column("schedule_id", String(36), nullable=True),
    Column("nominal_at", Double, nullable=True),
    Column("sandbox_id", String(36), nullable=True),
    Column("status", String(16), nullable=False),
    Column("exit_code", Integer, nullable=True),
    Column("stdout", Text, nullable=False),
    Column("stderr", Text, nullable=False),
    Column("result", Text, nullable=True),
    Column("error", Text, nullable=True),
    Column("traceback", Text, nullable=True),
    Column("start", String(16), nullable=True),
    Column("duration_ms", Double, nullable=True),
    Column("cpu_seconds", Double, nullable=True),
    Column("peak_memory_mb", Double, nullable=True),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double, nullable=True),
    Index(None, "function_id", "started_at"),
    Index(None, "schedule_id", "nominal_at", unique=True),
    Index(None, "status"),
)

runner_pools = Table(
    "runner_pools",
    metadata,
    Column("id", String(36), primary_key=True),  # also that of the sandbox that prepares it
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("version", JSON(none_as_null=True), nullable=True),
    Column("error", Text, nullable=True),
    Index(None, "workspace", "name", unique=True),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(36), primary_key=True),  # also that of its sandbox
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("pool_id", String(36), nullable=False),
    Column("pool", String(64), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double, nullable=True),
    Column("ended_at", Double, nullable=True),
    Column("version", String(36), nullable=True),
    Column("exit_code", Integer, nullable=True),
    Column("failed_step", Integer, nullable=True),
    Column("reason", String(32), nullable=True),
    Column("error", Text, nullable=True),
    Column("artifacts_bytes", BigInteger, nullable=True),
    Column("kept_until", Double, nullable=True),
    Index(None, "workspace", "created_at"),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("url", Text, nullable=False),
    Column("events", JSON, nullable=False),
    Column("description", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("disabled_reason", Text, nullable=True),
    Column("failing_since", Double, nullable=True),
    Column("dropped", Integer, nullable=False, server_default="0"),
    Index(None, "workspace", "created_at"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("endpoint_id", String(36), ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("event_id", String(64), nullable=False),
    Column("type", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", Double, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("ended_at", Double, nullable=True),
    Column("status", Integer, nullable=True),
    Column("error", Text, nullable=True),
    Index(None, "endpoint_id", "event_id", unique=True),
    Index(None, "endpoint_id", "state", "due_at"),
)

github_deliveries = Table(
    "github_deliveries",
    metadata,
    Column("hook", String(36), primary_key=True),
    Column("delivery_id", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("received_at", Double, nullable=False),
    Index(None, "hook", "digest"),
    Index(None, "received_at"),
)

github_runners = Table(
    "github_runners",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("workspace", String(64), ForeignKey("workspaces.id"), nullable=False),
    Column("pool", String(64), nullable=False),
    Column("scope", Text, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("since", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("runner_id", BigInteger, nullable=True),
    Column("job_id", BigInteger, nullable=True),
    Column("reason", Text, nullable=True),
)
