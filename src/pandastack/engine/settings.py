"""The engine's settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pandastack.errors import BadRequestError
from pandastack.model.confinement import Measure

READY_MAXIMUM = 1024
"""More machines than this per template are a slip of the pen."""


@dataclass(frozen=True)
class Settings:
    """What an operator may change about the engine: each field ``name`` is read from ``PANDASTACK_NAME``."""

    ready_machines: int = 4
    """How many machines are made ahead for each template; each takes about 20 MB. 0: every create makes its own."""

    require: frozenset[Measure] = frozenset()
    """What must confine machines here; the server does not start where one is missing."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Raises :class:`BadRequestError` that names the variable whose value makes no sense."""
        return cls(ready_machines=_ready_machines(env), require=_require(env))


def _ready_machines(env: Mapping[str, str]) -> int:
    text = env.get("PANDASTACK_READY_MACHINES") or str(Settings.ready_machines)
    if not text.isdecimal() or int(text) > READY_MAXIMUM:
        message = f"PANDASTACK_READY_MACHINES must be a whole number up to {READY_MAXIMUM}, not {text!r}"
        raise BadRequestError(message, field="PANDASTACK_READY_MACHINES")
    return int(text)


def _require(env: Mapping[str, str]) -> frozenset[Measure]:
    names = [name for each in env.get("PANDASTACK_REQUIRE", "").split(",") if (name := each.strip())]
    known = {each.value: each for each in Measure}
    for name in names:
        if name not in known:
            message = f"PANDASTACK_REQUIRE: unknown measure {name!r}"
            raise BadRequestError(message, hint=f"any of {', '.join(known)}", field="PANDASTACK_REQUIRE")
    return frozenset(known[name] for name in names)
