"""Snapshots of sandboxes at the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pandastack.contract.fields import Count, Seconds, Uuid


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Asks for a snapshot under a new id. The answer is :class:`~pandastack.contract.sandboxes.Captured`."""

    id: Uuid


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One stored snapshot."""

    id: str


@dataclass(frozen=True, slots=True)
class ExpectCreates:
    """Says that sandboxes will be created from a snapshot: ``count`` machines that have loaded it shall wait during the
    next ``seconds``, as far as the engine's budget for all snapshots allows. Replaces the former hint."""

    count: Count
    seconds: Seconds


@dataclass(frozen=True, slots=True)
class MeasureSnapshots:
    """Asks how much storage deleting these snapshots, in this order, would free."""

    ids: tuple[Uuid, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes of the engine's storage, and for each snapshot the bytes that its deletion frees, after the deletion of
    those before it.

    The numbers hold at one moment only: as a running sandbox writes to its disk, its snapshots come to own more and
    more old blocks.
    """

    total_bytes: int
    free_bytes: int
    reserve_bytes: int
    frees: Mapping[str, int]
