"""What a sandbox is to be."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SandboxSpec:
    """What a sandbox wants its machine to be."""

    sandbox: str
    hostname: str
    env: dict[str, str] = field(default_factory=dict)
    frozen: bool = False
    """Whether its programs stay frozen after the restore: a machine that is only looked at."""
