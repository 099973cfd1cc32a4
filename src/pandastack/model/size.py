"""How large a sandbox is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """CPUs, memory and root disk; memory and disk in MiB."""

    cpus: int
    memory_mb: int
    disk_mb: int


MEMORY_BLOCK_MB = 128
"""Memory is given to guests in blocks of this size: those of Linux on x86-64 with less than 64 GiB."""
