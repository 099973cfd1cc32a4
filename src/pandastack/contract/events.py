"""What happens on an engine without being asked for: one message a line, an empty line as a sign of life."""

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


Event = MachineDied
"""Every event there is; another one makes this a union."""
