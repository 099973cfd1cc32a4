"""Records as the objects of the public API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pandastack.services import ControlPlane
from pandastack.services.records.spec import DELETE
from pandastack.services.sandboxes.forks import Forked
from pandastack.store.events import EventRecord
from pandastack.store.sandboxes import SandboxRecord
from pandastack.store.snapshots import SnapshotRecord
from pandastack.store.tokens import TokenRecord


def timestamp(seconds: float) -> str:
    """Epoch seconds as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def optional(seconds: float | None) -> str | None:
    """The same for a time that may not exist, or lies further ahead than dates go."""
    if seconds is None:
        return None
    try:
        return timestamp(seconds)
    except (ValueError, OverflowError, OSError):
        return None


def sandbox(record: SandboxRecord, plane: ControlPlane) -> dict[str, Any]:
    """A sandbox; metadata under ``secret.`` stays here."""
    shown = {
        "id": record.id,
        "template": record.template,
        "cpu": record.cpu,
        "memory_mb": record.memory_mb,
        "status": record.status,
        "metadata": {key: text for key, text in record.metadata.items() if not key.startswith("secret.")},
        "persistent": record.persistent,
        "ttl_seconds": record.ttl_seconds,
        "created_at": timestamp(record.created_at),
        "boot_ms": record.boot_ms or 0,
        "boot_mode": record.boot_mode or "",
        "from_snapshot": record.from_snapshot,
        "on_expire": record.on_expire or DELETE,
        "expires_at": optional(plane.sandboxes.expires_at(record)),
        "accelerator": plane.host.get("accelerator"),
        "isolation": plane.host.get("isolation"),
    }
    return shown if record.reason is None else shown | {"reason": record.reason}


def lifecycle(record: SandboxRecord, plane: ControlPlane) -> dict[str, Any]:
    """What ends a sandbox that is not used."""
    return {
        "ttl_seconds": record.ttl_seconds,
        "persistent": record.persistent,
        "idle_seconds": plane.sandboxes.idle_seconds(record),
        "on_expire": record.on_expire or DELETE,
        "expires_at": optional(plane.sandboxes.expires_at(record)),
        "checkpoint_every": record.checkpoint_every,
        "checkpoint_after_exec": record.checkpoint_after_exec,
    }


_OF_CHECKPOINTS = ("automatic", "commands", "command_count")


def snapshot(record: SnapshotRecord) -> dict[str, Any]:
    """A snapshot."""
    shown = {key: value for key, value in asdict(record).items() if key not in _OF_CHECKPOINTS}
    return {**shown, "created_at": timestamp(record.created_at)}


def checkpoint(record: SnapshotRecord) -> dict[str, Any]:
    """A checkpoint of a sandbox."""
    return {
        "id": record.id,
        "created_at": timestamp(record.created_at),
        "label": record.label,
        "size_bytes": record.size_bytes,
        "dirty_bytes": record.dirty_bytes,
        "automatic": record.automatic,
        "commands": list(record.commands),
        "command_count": record.command_count,
    }


def forked(done: Forked, plane: ControlPlane) -> dict[str, Any]:
    """What a fork made; clients read `sandbox`, the first of `children`, or both."""
    return {
        "sandbox": sandbox(done.children[0], plane),
        "children": [child.id for child in done.children],
        "parent_id": done.parent.id,
        "snapshot_id": done.id,
        "at": timestamp(done.at),
        **_errors(done),
    }


def fork_tree(done: Forked, plane: ControlPlane) -> dict[str, Any]:
    """A tree of forks; `children` are in the order of their index."""
    return {
        "tree_id": done.id,
        "parent_id": done.parent.id,
        "snapshot_id": done.id,
        "at": timestamp(done.at),
        "children": [sandbox(child, plane) for child in done.children],
        **_errors(done),
    }


def _errors(done: Forked) -> dict[str, Any]:
    errors = [{"index": index, "error": error.message} for index, error in done.errors.items()]
    return {"errors": errors} if errors else {}


def template(source: Mapping[str, Any]) -> dict[str, Any]:
    """A template; what the engine knows of its making goes under ``meta``."""
    manifest = source.get("manifest")
    return {
        "name": source["name"],
        "label": source["name"],
        "description": source.get("description") or "",
        "cpu": source.get("cpu"),
        "memory_mb": source.get("memory_mb"),
        "disk_mb": source.get("disk_mb"),
        "size_bytes": source.get("size_bytes"),
        "is_global": True,
        "base": source.get("base"),
        "tools": list(source.get("tools") or ()),
        "aliases": list(source.get("aliases") or ()),
        "version": source.get("version"),
        "meta": {**(manifest if isinstance(manifest, Mapping) else {}), "built_at": source.get("built_at")},
    }


def event(record: EventRecord) -> dict[str, Any]:
    """An event of a sandbox."""
    return {
        "time": timestamp(record.time),
        "sandbox_id": record.sandbox_id,
        "type": record.type,
        "payload": record.payload,
    }


def token(record: TokenRecord, text: str | None = None) -> dict[str, Any]:
    """A token; ``text`` is the token itself, shown when it is made. Some clients read its name, others its label."""
    shown = {
        "prefix": record.prefix,
        "name": record.label,
        "label": record.label,
        "created_at": timestamp(record.created_at),
        "expires_at": None if record.expires_at is None else timestamp(record.expires_at),
    }
    return shown if text is None else {"token": text, **shown}


def process(record: Mapping[str, Any]) -> dict[str, Any]:
    """A process as its guest reports it."""
    running = bool(record["running"])
    usage = {
        "cpu_user_ms": record["utime_us"] // 1000,
        "cpu_system_ms": record["stime_us"] // 1000,
        "peak_rss_kb": record["maxrss_kb"],
        "read_bytes": record["read_blocks"] * 512,
        "written_bytes": record["written_blocks"] * 512,
    }
    return {
        "id": record["id"],
        "pid": record["pid"],
        "cmd": record["cmd"],
        "cmd_truncated": record["cmd_cut"],
        "user": record["user"],
        "status": "running" if running else "exited",
        "exit_code": record["exit_code"],
        "signal": record["signal"] or None,
        **{name: record[name] for name in ("timed_out", "cancelled", "inherited", "background", "pty", "stdin_open")},
        "rows": record["rows"] or None,
        "cols": record["columns"] or None,
        "started_at": optional(record["started_at"]),
        "duration_ms": record["duration_us"] // 1000,
        "timeout_seconds": record["timeout_s"],
        "usage": None if running else usage,
        "output": {name: {"start": record[name]["base"], "end": record[name]["end"]} for name in ("stdout", "stderr")},
    }


def processes(found: Mapping[str, Any], plane: ControlPlane) -> dict[str, Any]:
    """All of a sandbox, and how long they are remembered."""
    kept = found["retention"]
    return {
        "processes": [process(each) for each in found["processes"]],
        "retention": {
            "records": kept["records"],
            "bytes": kept["bytes"],
            "age_seconds": kept["age_s"],
            "bytes_per_stream": plane.settings.kept_output_bytes,
            "forgotten": kept["forgotten"],
        },
    }
