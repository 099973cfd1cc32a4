"""The templates of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Freshness(StrEnum):
    """Whether a template is as this host would bake it today."""

    CURRENT = "current"
    STALE = "stale"
    """It would be another; it is used as long as its memory may be restored."""
    REBAKING = "rebaking"
    """It is being baked again."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The hardware and software that a template's snapshot was made with, which decide where it can be restored."""

    key: str
    format: int
    accelerator: str
    vmm: str
    cpu_flags: str
    cpus: int
    memory_mb: int
    disk_mb: int
    image: str
    kernel_release: str
    kernel_version: str
    kernel_sha256: str
    quiet: bool
    """Whether the guest's end of the channel was at a frame boundary."""
    built_at: str
    parent: str
    """The snapshot that the captured machine was restored from; empty for a template's snapshot."""
    bake_seconds: float = 0.0
    """How long the bake took, from the boot to the capture."""


@dataclass(frozen=True, slots=True)
class Template:
    """A template. ``memory_mb`` and ``disk_mb`` are in MiB; ``size_bytes`` is the image plus
    the baked memory; ``version`` is the key of the snapshot. ``owner`` empty: everybody's."""

    name: str
    description: str
    cpu: int
    memory_mb: int
    disk_mb: int
    tools: tuple[str, ...]
    aliases: tuple[str, ...]
    category: str
    base: str
    env: Mapping[str, str]
    version: str
    image: str
    size_bytes: int
    built_at: str
    manifest: Manifest
    max_cpu: int = 0
    min_memory_mb: int = 0
    max_memory_mb: int = 0
    owner: str = ""
    state: Freshness = Freshness.CURRENT
    state_reason: str = ""
    """Why it is not current, and why baking it again failed, if it did."""
