"""The specification of a sandbox."""

from __future__ import annotations

from dataclasses import dataclass, field

from pandastack.model.network import OPEN, NetworkPolicy


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
