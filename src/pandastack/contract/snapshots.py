"""Snapshots of sandboxes at the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pandastack.contract.codec import Constraint
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


LEAST_SOUGHT, MOST_SOUGHT = 8, 256
"""Bytes of a value that can be searched for: a shorter one is in every memory by chance, of a longer one the beginning
will do."""

Sought = Annotated[
    bytes,
    Constraint(
        lambda value: LEAST_SOUGHT <= len(value) <= MOST_SOUGHT and not {0, 10} & set(value),
        "be 8 to 256 bytes without NUL and line breaks",
    ),
]


@dataclass(frozen=True, slots=True)
class SearchMemory:
    """Asks which of these values are in the memory of a snapshot."""

    values: tuple[Sought, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class MemoryFound:
    """The places, in the request, of the values that are in the memory. Those that are also ``inherited`` are in the
    memory of the template as well, if the engine still has it."""

    found: tuple[int, ...]
    inherited: tuple[int, ...] = ()


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
