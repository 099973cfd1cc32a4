"""What a sandbox is to be."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SandboxSpec:
    """What a sandbox wants its machine to be."""

    sandbox: str
    hostname: str
    env: dict[str, str] = field(default_factory=dict)
    still: bool = False
    """Whether no program in it is to run: a machine that is only looked at."""
