"""What is written to a control group's files for a set of limits: pure functions.

Sources: the kernel's ``admin-guide/cgroup-v2.rst`` and ``admin-guide/cgroup-v1/``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PERIOD = 100_000
"""Microseconds of CPU bandwidth control's period: the kernel's default."""

_V1_SHARES, _V2_WEIGHT = 1024, 100
"""What a group with one CPU weighs."""

Setting = tuple[str, str, str]
"""A controller, a file of its, and the text that is written to it."""


@dataclass(frozen=True)
class Limits:
    """What the processes of a group may take together; 0: no limit. ``cpus`` is their weight against others too, unless
    ``weight`` is another."""

    memory_bytes: int
    cpus: float
    threads: int
    weight: float = 0.0

    @property
    def share(self) -> float:
        """The CPUs that the group counts as where there are too few."""
        return self.weight or self.cpus


def plan_settings(version: int, limits: Limits) -> list[Setting]:
    """The files to write, in order."""
    return list(_v2(limits) if version == 2 else _v1(limits))


def _v2(limits: Limits) -> Iterator[Setting]:
    if limits.memory_bytes:
        yield "memory", "memory.max", str(limits.memory_bytes)
        yield "memory", "memory.swap.max", "0"
        yield "memory", "memory.oom.group", "1"
    if limits.cpus:
        yield "cpu", "cpu.max", f"{int(limits.cpus * PERIOD)} {PERIOD}"
        yield "cpu", "cpu.weight", str(_bounded(int(limits.share * _V2_WEIGHT), 1, 10_000))
    if limits.threads:
        yield "pids", "pids.max", str(limits.threads)


def _v1(limits: Limits) -> Iterator[Setting]:
    if limits.memory_bytes:
        yield "memory", "memory.memsw.limit_in_bytes", "-1"  # it must not be the lower of the two, in either direction
        yield "memory", "memory.limit_in_bytes", str(limits.memory_bytes)
        yield "memory", "memory.memsw.limit_in_bytes", str(limits.memory_bytes)
    if limits.cpus:
        yield "cpu", "cpu.cfs_period_us", str(PERIOD)
        yield "cpu", "cpu.cfs_quota_us", str(int(limits.cpus * PERIOD))
        yield "cpu", "cpu.shares", str(_bounded(int(limits.share * _V1_SHARES), 2, 262_144))
    if limits.threads:
        yield "pids", "pids.max", str(limits.threads)


OPTIONAL = frozenset({"memory.swap.max", "memory.memsw.limit_in_bytes", "memory.oom.group"})
"""Files that a kernel without swap accounting, or an old one, does not have."""


def _bounded(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
