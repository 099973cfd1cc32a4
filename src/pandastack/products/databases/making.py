"""A database while it is made."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from pandastack.errors import PandastackError


@dataclass(eq=False)
class Making:
    """A database that is being made: its machine first. ``left`` is set when the task has ended. ``is_resumed``:
    another server began it, and nobody waits for an answer."""

    is_resumed: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    machine: anyio.Event = field(default_factory=anyio.Event)
    left: anyio.Event = field(default_factory=anyio.Event)
    error: PandastackError | None = None
