"""The engine's settings."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from pandastack.errors import BadRequestError
from pandastack.host import facts
from pandastack.model.confinement import Measure
from pandastack.model.registries import REGISTRIES, AllowedRegistry, parse_allowed
from pandastack.network import subnets
from pandastack.network.subnets import Subnets, parse_subnets

READY_MAXIMUM = 1024
"""A larger number of machines per template is taken for a typing error."""

RATE_MAXIMUM = 1_000_000

BUILDS_MAXIMUM = 64

FACTOR_MAXIMUM = 1000.0
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """The engine settings that an operator may change: each field ``name`` is read from ``PANDASTACK_NAME``."""

    ready_machines: int = 4
    """How many machines are made ahead for each template; each takes about 30 MB. With 0 every create makes its own."""

    waiting_machines: int = 16
    """How many machines may wait for snapshots that are used again and again, all snapshots together; 0: none."""

    waiting_memory_mb: int = 1024
    """MiB of memory that these may take together."""

    require: frozenset[Measure] = frozenset()
    """The measures that must confine machines; the server does not start where one is missing."""

    overcommit: float = 4.0
    """How many times the host's memory may be promised to sandboxes."""

    disk_overcommit: float = 20.0
    """How many times the storage pool may be promised to the disks of sandboxes with a machine."""

    max_templates: int = 100
    """How many templates each owner may have; the operator's are not counted."""

    max_template_builds: int = 8
    """How many builds of each owner may wait or run."""
    builds: int = max(2, facts.cores() // 2)
    """How many templates are built at once; others wait for their turn. A build waits for downloads much of its time,
    and its machine gets what CPU time sandboxes leave."""

    disk_mb_per_second: int = 0
    """MiB a second that the disks of a sandbox may transfer, unless its template says otherwise; 0: no limit."""

    disk_operations_per_second: int = 0
    """The same for reads and writes of any length."""

    rebake: bool = True
    """Whether templates that this host would bake differently today are baked again in the background."""

    network: Subnets = field(default_factory=lambda: parse_subnets(subnets.DEFAULT, "PANDASTACK_NETWORK"))
    """The network that the slots of all installations of this host share: a private one that the host does not use."""

    resolvers: tuple[tuple[str, int], ...] = ()
    """The DNS servers (address, port) that are asked for what sandboxes look up; empty: the host's."""

    registries: tuple[AllowedRegistry, ...] = ()
    """Registries of images that builds may reach wherever they are: ``host:port`` for plain HTTP, ``https://host``."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Raises :class:`BadRequestError` that names the variable with the invalid value."""
        return cls(
            ready_machines=_whole(env, "PANDASTACK_READY_MACHINES", cls.ready_machines),
            waiting_machines=_whole(env, "PANDASTACK_WAITING_MACHINES", cls.waiting_machines),
            waiting_memory_mb=_whole(env, "PANDASTACK_WAITING_MEMORY_MB", cls.waiting_memory_mb, RATE_MAXIMUM),
            overcommit=_factor(env, "PANDASTACK_OVERCOMMIT", cls.overcommit),
            disk_overcommit=_factor(env, "PANDASTACK_DISK_OVERCOMMIT", cls.disk_overcommit),
            max_templates=_whole(env, "PANDASTACK_MAX_TEMPLATES", cls.max_templates, RATE_MAXIMUM),
            max_template_builds=_whole(env, "PANDASTACK_MAX_TEMPLATE_BUILDS", cls.max_template_builds),
            builds=_builds(env),
            require=_require(env),
            disk_mb_per_second=_whole(env, "PANDASTACK_DISK_MB_PER_SECOND", 0, RATE_MAXIMUM),
            disk_operations_per_second=_whole(env, "PANDASTACK_DISK_OPERATIONS_PER_SECOND", 0, RATE_MAXIMUM),
            rebake=_switch(env, "PANDASTACK_REBAKE"),
            network=parse_subnets(env.get("PANDASTACK_NETWORK") or subnets.DEFAULT, "PANDASTACK_NETWORK"),
            resolvers=_resolvers(env.get("PANDASTACK_RESOLVERS", "")),
            registries=parse_allowed(env.get(REGISTRIES, "")),
        )


def _whole(env: Mapping[str, str], name: str, default: int, most: int = READY_MAXIMUM) -> int:
    text = env.get(name) or str(default)
    if not text.isdecimal() or len(text) > 9 or int(text) > most:
        raise BadRequestError(f"{name} must be a whole number up to {most}, not {text!r}", field=name)
    return int(text)


def _builds(env: Mapping[str, str]) -> int:
    count = _whole(env, "PANDASTACK_BUILDS", Settings.builds, BUILDS_MAXIMUM)
    if count == 0:
        raise BadRequestError("PANDASTACK_BUILDS must be at least 1", field="PANDASTACK_BUILDS")
    return count


def _switch(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name) or "on"
    if text not in ("on", "off"):
        raise BadRequestError(f"{name} must be on or off, not {text[:64]!r}", field=name)
    return text == "on"


def _factor(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name) or str(default)
    if not _DECIMAL.fullmatch(text) or not 0 < float(text) <= FACTOR_MAXIMUM:
        message = f"{name} must be a number above 0 and up to {FACTOR_MAXIMUM:g}, not {text!r}"
        raise BadRequestError(message, field=name)
    return float(text)


def _resolvers(text: str) -> tuple[tuple[str, int], ...]:
    return tuple(_resolver(each.strip()) for each in text.split(",") if each.strip())


def _resolver(text: str) -> tuple[str, int]:
    address, _, port = text.partition(":")
    try:
        number = int(port or "53") if port.isdecimal() or not port else 0
        if not 0 < number < 65536:
            raise ValueError(port)
        return str(IPv4Address(address)), number
    except ValueError:
        message = f"PANDASTACK_RESOLVERS must be IPv4 addresses, each with or without a port, not {text[:64]!r}"
        raise BadRequestError(
            message, field="PANDASTACK_RESOLVERS", hint="for example 192.0.2.53,192.0.2.54:5353"
        ) from None


def _require(env: Mapping[str, str]) -> frozenset[Measure]:
    names = [name for each in env.get("PANDASTACK_REQUIRE", "").split(",") if (name := each.strip())]
    known = {each.value: each for each in Measure}
    for name in names:
        if name not in known:
            message = f"PANDASTACK_REQUIRE: unknown measure {name!r}"
            raise BadRequestError(message, hint=f"any of {', '.join(known)}", field="PANDASTACK_REQUIRE")
    return frozenset(known[name] for name in names)
