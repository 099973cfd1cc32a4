"""Unsolicited events of an engine: one message per line, an empty line as a sign of life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class MachineDied:
    """A sandbox's machine ended by itself. ``disks_kept``: it is hibernated now, without its memory."""

    KIND: ClassVar[str] = "vm.died"

    sandbox_id: str
    pid: int
    reason: str
    disks_kept: bool = False


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


@dataclass(frozen=True, slots=True)
class SecretUsed:
    """A request of a sandbox to ``host`` had a placeholder. ``path`` is without the query. ``refused`` says why the
    request was not forwarded; empty: it was, with the value of the secret ``name``."""

    KIND: ClassVar[str] = "secret.used"

    sandbox_id: str
    name: str
    host: str
    method: str
    path: str
    refused: str = ""


Event = MachineDied | MachineStalled | MachineContinued | SecretUsed
