"""The tables of the control plane; those of products are in :mod:`pandastack.store.product_schema`.

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
