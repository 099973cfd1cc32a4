"""The specification of a sandbox."""

from __future__ import annotations

from dataclasses import dataclass, field

from pandastack.model.network import OPEN, NetworkPolicy


@dataclass(frozen=True)
class Attachment:
    """A volume that a sandbox has by its id. Copies of the sandbox have the contents, and not the volume."""

    volume: str
    path: str
    """Where its guest mounts it."""
    place: int
    """Which of its machine's places for volumes has it; 0 is ``/dev/vdb``."""
    read_only: bool = False
    """Whether it has a copy of the volume, made at the attach, that it only reads."""


@dataclass(frozen=True)
class SandboxSpec:
    """What a sandbox's machine is to be."""

    sandbox: str
    hostname: str
    env: dict[str, str] = field(default_factory=dict)
    frozen: bool = False
    """Whether its programs stay frozen after the restore, for a machine that is only inspected."""
    network: NetworkPolicy = OPEN
    """What it may reach."""
    volumes: tuple[Attachment, ...] = ()
    """Its volumes in the order in which they were asked for."""

    @property
    def written(self) -> dict[int, str]:
        """By place, the volumes that it may write to: the disks of its machine are theirs."""
        return {each.place: each.volume for each in self.volumes if not each.read_only}
