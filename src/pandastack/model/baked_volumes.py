"""Volumes of a template: mounted at its bake, so that every sandbox finds its own clone of each mounted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BakedVolume:
    """A volume of ``size_mb`` MiB that a template mounts at ``path``."""

    path: str
    size_mb: int
