"""The tables of products, and of what tells others of them."""

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
    String,
    Table,
    Text,
    false,
)

from pandastack.store.schema import metadata

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
    Column("secrets", JSON, nullable=False, server_default="[]"),
    Column("network", JSON(none_as_null=True), nullable=True),
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
    Column("warnings", JSON, nullable=False, server_default="[]"),
    Column("network", JSON(none_as_null=True), nullable=True),
)

function_aliases = Table(
    "function_aliases",
    metadata,
    Column("function_id", String(36), ForeignKey("functions.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
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
    Column("attempt", Integer, nullable=False, server_default="1"),
    Column("retries", Integer, nullable=False, server_default="0"),
    Column("attempts", JSON, nullable=True),
    Column("next_attempt_at", Double, nullable=True),
    Column("callback", Text, nullable=True),
    Column("kept_until", Double, nullable=True),
    Index(None, "function_id", "started_at"),
    Index(None, "schedule_id", "nominal_at", unique=True),
    Index(None, "status"),
)

function_run_events = Table(
    "function_run_events",
    metadata,
    Column("run_id", String(36), ForeignKey("function_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("event", Text, nullable=False),
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
    Column("refresh_at", Double, nullable=True),
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
    Column("checkpoint", JSON(none_as_null=True), nullable=True),
    Column("retry_of", String(36), nullable=True),
    Column("from_step", Integer, nullable=False, server_default="0"),
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
    Column("owner", String(64), nullable=False, server_default=""),
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
    Column("url", Text, nullable=True),
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
