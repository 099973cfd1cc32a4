"""Snapshots that the engine keeps of sandboxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pandastack.contract.fields import Uuid


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Asks for a snapshot under a new id. The answer is :class:`~pandastack.contract.sandboxes.Captured`."""

    id: Uuid


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One that is kept."""

    id: str


@dataclass(frozen=True, slots=True)
class MeasureSnapshots:
    """Asks what would become free if these were deleted, the first one first."""

    ids: tuple[Uuid, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes of the engine's storage, and for each snapshot those that become free when it is deleted after those
    before it.

    True at one moment only: a disk that a running sandbox writes to leaves its snapshots more and more old blocks.
    """

    total_bytes: int
    free_bytes: int
    reserve_bytes: int
    frees: Mapping[str, int]
