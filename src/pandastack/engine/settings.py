"""The engine's settings."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pandastack.errors import BadRequestError
from pandastack.model.confinement import Measure

READY_MAXIMUM = 1024
"""A larger number of machines per template is taken for a typing error."""

FACTOR_MAXIMUM = 1000.0
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """The engine settings that an operator may change: each field ``name`` is read from ``PANDASTACK_NAME``."""

    ready_machines: int = 4
    """How many machines are made ahead for each template; each takes about 30 MB. With 0 every create makes its own."""

    require: frozenset[Measure] = frozenset()
    """The measures that must confine machines; the server does not start where one is missing."""

    overcommit: float = 4.0
    """How many times the host's memory may be promised to sandboxes."""

    disk_overcommit: float = 20.0
    """How many times the storage pool may be promised to the disks of sandboxes with a machine."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Raises :class:`BadRequestError` that names the variable with the invalid value."""
        return cls(
            ready_machines=_whole(env, "PANDASTACK_READY_MACHINES", cls.ready_machines),
            overcommit=_factor(env, "PANDASTACK_OVERCOMMIT", cls.overcommit),
            disk_overcommit=_factor(env, "PANDASTACK_DISK_OVERCOMMIT", cls.disk_overcommit),
            require=_require(env),
        )


def _whole(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not text.isdecimal() or int(text) > READY_MAXIMUM:
        raise BadRequestError(f"{name} must be a whole number up to {READY_MAXIMUM}, not {text!r}", field=name)
    return int(text)


def _factor(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name) or str(default)
    if not _DECIMAL.fullmatch(text) or not 0 < float(text) <= FACTOR_MAXIMUM:
        message = f"{name} must be a number above 0 and up to {FACTOR_MAXIMUM:g}, not {text!r}"
        raise BadRequestError(message, field=name)
    return float(text)


def _require(env: Mapping[str, str]) -> frozenset[Measure]:
    names = [name for each in env.get("PANDASTACK_REQUIRE", "").split(",") if (name := each.strip())]
    known = {each.value: each for each in Measure}
    for name in names:
        if name not in known:
            message = f"PANDASTACK_REQUIRE: unknown measure {name!r}"
            raise BadRequestError(message, hint=f"any of {', '.join(known)}", field="PANDASTACK_REQUIRE")
    return frozenset(known[name] for name in names)
