"""The engine's settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pandastack.errors import BadRequestError

READY_MAXIMUM = 1024
"""More machines than this per template are a slip of the pen."""


@dataclass(frozen=True)
class Settings:
    """What an operator may change about the engine: each field ``name`` is read from ``PANDASTACK_NAME``."""

    ready_machines: int = 4
    """How many machines are made ahead for each template; each takes about 20 MB. 0: every create makes its own."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Raises :class:`BadRequestError` that names the variable whose value makes no sense."""
        text = env.get("PANDASTACK_READY_MACHINES") or str(cls.ready_machines)
        if not text.isdecimal() or int(text) > READY_MAXIMUM:
            message = f"PANDASTACK_READY_MACHINES must be a whole number up to {READY_MAXIMUM}, not {text!r}"
            raise BadRequestError(message, field="PANDASTACK_READY_MACHINES")
        return cls(ready_machines=int(text))
