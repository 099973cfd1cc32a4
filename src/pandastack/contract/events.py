"""Unsolicited events of an engine: one message per line, an empty line as a sign of life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class MachineDied:
    """A sandbox's machine ended by itself."""

    KIND: ClassVar[str] = "vm.died"

    sandbox_id: str
    pid: int
    reason: str


@dataclass(frozen=True, slots=True)
class MachineStalled:
    """A sandbox's machine has paused by itself, because a write of its guest found the host's storage full."""

    KIND: ClassVar[str] = "vm.stalled"

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class MachineContinued:
    """A stalled machine runs again; its write was carried out."""

    KIND: ClassVar[str] = "vm.continued"

    sandbox_id: str


Event = MachineDied | MachineStalled | MachineContinued
