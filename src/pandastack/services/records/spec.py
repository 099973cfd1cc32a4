"""Validates requests for sandboxes, and makes the records of new ones. Pure."""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pandastack.contract.sandboxes import DEFAULT_SIZE, WantedSize
from pandastack.errors import BadRequestError
from pandastack.model.caller import Caller
from pandastack.model.network import NetworkPolicy
from pandastack.model.network_rules import to_json
from pandastack.model.previews import check_metadata
from pandastack.services.settings import Settings
from pandastack.store.sandboxes import SandboxRecord, Status
from pandastack.store.snapshots import SnapshotRecord
from pandastack.store.volumes import VolumeUse

DELETE, HIBERNATE = "delete", "hibernate"
BOOT, FAIL = "boot", "fail"

_TEMPLATE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAX_METADATA = 64 * 1024  # characters; every record is held in memory
_MAX_SECONDS = _MAX_NUMBER = 2**31 - 1
_OF_THE_PARENT_ONLY = ("fork_tree_id", "fork_tree_role", "fork_index", "explore", "explore_ttl")


@dataclass(frozen=True, slots=True)
class WantedVolume:
    """A volume of a new sandbox, by its name. ``path`` None: ``/mnt/NAME``. ``read_only``: a copy of it as it is
    now."""

    name: str
    read_only: bool = False
    path: str | None = None


@dataclass(frozen=True, slots=True)
class NewSandbox:
    """A request for a new sandbox. ``ttl_seconds`` None: the configured default. ``snapshot`` overrides ``template``.

    ``on_expire`` is :data:`DELETE` (also None) or :data:`HIBERNATE`; ``checkpoint_every`` is in seconds (0, None: off).
    ``max_lifetime_seconds`` 0 or None: no limit. ``on_memory_loss`` is :data:`BOOT` (also None) or :data:`FAIL`. ``id``
    None: a new one. ``network`` None: the template's policy. ``volumes`` are in the order of their devices.
    ``product`` and ``always_on`` are for products: see :class:`SandboxRecord`.
    """

    template: str = ""
    ttl_seconds: int | None = None
    persistent: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    snapshot: str | None = None
    on_expire: str | None = None
    checkpoint_every: float | None = None
    checkpoint_after_exec: bool = False
    max_lifetime_seconds: int | None = None
    size: WantedSize = DEFAULT_SIZE
    on_memory_loss: str | None = None
    id: str | None = None
    network: NetworkPolicy | None = None
    volumes: tuple[WantedVolume, ...] = ()
    product: str | None = None
    always_on: bool = False


@dataclass(frozen=True, slots=True)
class LifecyclePatch:
    """A request to change an existing sandbox; None leaves a field as it is.

    ``checkpoint_every`` and ``max_lifetime_seconds`` are in seconds; 0 means never.
    """

    ttl_seconds: int | None = None
    persistent: bool | None = None
    on_expire: str | None = None
    checkpoint_every: float | None = None
    checkpoint_after_exec: bool | None = None
    max_lifetime_seconds: int | None = None
    on_memory_loss: str | None = None
    always_on: bool | None = None


def planned_values(patch: LifecyclePatch, settings: Settings) -> dict[str, Any]:
    """The new values of a record's fields. Raises :class:`BadRequestError`."""
    values = {field.name: given for field in fields(patch) if (given := getattr(patch, field.name)) is not None}
    if patch.ttl_seconds is not None:
        checked_ttl(patch.ttl_seconds, settings)
    if patch.checkpoint_every is not None:
        values["checkpoint_every"] = checked_every(patch.checkpoint_every)
    if patch.max_lifetime_seconds is not None:
        values["max_lifetime_seconds"] = checked_lifetime(patch.max_lifetime_seconds)
    checked_on_expire(patch.on_expire)
    checked_on_memory_loss(patch.on_memory_loss)
    return values


def planned(
    caller: Caller,
    wanted: NewSandbox,
    node: str,
    settings: Settings,
    snapshot: SnapshotRecord | None = None,
    volumes: tuple[VolumeUse, ...] = (),
) -> SandboxRecord:
    """The record of a new sandbox on ``node`` with these ``volumes``. Raises :class:`BadRequestError`."""
    template = wanted.template if snapshot is None else snapshot.template
    if not _TEMPLATE_NAME.fullmatch(template):
        raise unknown_template(template)
    checked_size(wanted.size)
    check_metadata(wanted.metadata)
    now = time.time()
    ttl = settings.default_ttl_seconds if wanted.ttl_seconds is None else checked_ttl(wanted.ttl_seconds, settings)
    return SandboxRecord(
        id=wanted.id or str(uuid.uuid4()),
        workspace=caller.workspace,
        template=template,
        status=Status.CREATING,
        ttl_seconds=ttl,
        persistent=wanted.persistent,
        metadata=_checked_metadata({**wanted.metadata, "workspace": caller.workspace}),
        created_at=now,
        last_active_at=now,
        from_snapshot=None if snapshot is None else snapshot.id,
        on_expire=checked_on_expire(wanted.on_expire),
        checkpoint_every=checked_every(wanted.checkpoint_every),
        checkpoint_after_exec=wanted.checkpoint_after_exec,
        node=node,
        max_lifetime_seconds=checked_lifetime(wanted.max_lifetime_seconds),
        on_memory_loss=checked_on_memory_loss(wanted.on_memory_loss),
        network=None if wanted.network is None else to_json(wanted.network),
        volumes=volumes,
        product=wanted.product,
        always_on=wanted.always_on,
    )


def planned_child(
    parent: SandboxRecord, metadata: Mapping[str, str], settings: Settings, volumes: tuple[VolumeUse, ...] = ()
) -> SandboxRecord:
    """The record of a fork: its parent's, with ``metadata`` merged in and ``volumes`` of its own. It is deleted at its
    idle limit."""
    inherited = {key: text for key, text in parent.metadata.items() if key not in _OF_THE_PARENT_ONLY}
    merged = {**inherited, **metadata, "fork_parent_id": parent.id, "workspace": parent.workspace}
    now = time.time()
    return SandboxRecord(
        id=str(uuid.uuid4()),
        workspace=parent.workspace,
        template=parent.template,
        status=Status.CREATING,
        ttl_seconds=_explore_ttl(metadata, settings) or parent.ttl_seconds,
        metadata=_checked_metadata(merged),
        created_at=now,
        last_active_at=now,
        node=parent.node,
        max_lifetime_seconds=parent.max_lifetime_seconds,
        on_memory_loss=parent.on_memory_loss,
        network=parent.network,
        volumes=volumes,
    )


def checked_ttl(seconds: int, settings: Settings) -> int:
    """Check an idle limit in seconds. Raises :class:`BadRequestError`."""
    if seconds < 0:
        raise BadRequestError("ttl_seconds: must not be negative", field="ttl_seconds")
    if seconds > settings.max_ttl_seconds:
        raise BadRequestError(f"ttl_seconds exceeds tier maximum of {settings.max_ttl_seconds}", field="ttl_seconds")
    return seconds


def checked_on_expire(value: str | None) -> str | None:
    """Check the action at the idle limit. Raises :class:`BadRequestError`."""
    if value not in (None, DELETE, HIBERNATE):
        raise BadRequestError(f"on_expire: must be {DELETE!r} or {HIBERNATE!r}", field="on_expire")
    return value


def checked_on_memory_loss(value: str | None) -> str | None:
    """Check the action when only the disks are left. Raises :class:`BadRequestError`."""
    if value not in (None, BOOT, FAIL):
        raise BadRequestError(f"on_memory_loss: must be {BOOT!r} or {FAIL!r}", field="on_memory_loss")
    return value


def checked_every(seconds: float | None) -> float | None:
    """Check the seconds between automatic checkpoints; 0 becomes None. Raises :class:`BadRequestError`."""
    if not seconds:
        return None
    if not (math.isfinite(seconds) and seconds >= 1):
        hint = "0 switches automatic checkpoints off"
        raise BadRequestError("checkpoint_every: must be at least 1 second", field="checkpoint_every", hint=hint)
    return seconds


def checked_lifetime(seconds: int | None) -> int | None:
    """Check how long a sandbox may exist, in seconds; 0 becomes None. Raises :class:`BadRequestError`."""
    if not seconds:
        return None
    if not 0 < seconds <= _MAX_SECONDS:
        raise BadRequestError(
            f"max_lifetime_seconds: must be from 1 to {_MAX_SECONDS}",
            field="max_lifetime_seconds",
            hint="0 means no limit",
        )
    return seconds


def checked_size(size: WantedSize) -> None:
    """Check what no engine can give. Raises :class:`BadRequestError`."""
    for each in fields(size):
        wanted = getattr(size, each.name)
        if wanted is not None and not 0 < wanted <= _MAX_NUMBER:
            raise BadRequestError(f"{each.name}: must be from 1 to {_MAX_NUMBER}", field=each.name)


def unknown_template(name: str, field: str = "template") -> BadRequestError:
    """The error for the name of an unknown template in ``field`` of a request."""
    hint = "GET /v1/templates lists the templates"
    return BadRequestError(f"unknown template {name[:128]!r}", field=field, hint=hint)


def _checked_metadata(metadata: dict[str, str]) -> dict[str, str]:
    if sum(len(key) + len(text) for key, text in metadata.items()) > _MAX_METADATA:
        raise BadRequestError(f"metadata: over {_MAX_METADATA} characters in total", field="metadata")
    return metadata


def _explore_ttl(metadata: Mapping[str, str], settings: Settings) -> int | None:
    text = metadata.get("explore_ttl", "")
    return min(int(text), settings.max_ttl_seconds) if re.fullmatch("[0-9]{1,18}", text) else None
