"""Prepared versions of pools, as they are stored with the pool. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pandastack.model.network import NetworkPolicy
from pandastack.model.network_rules import from_json
from pandastack.products.runners.spec import PoolSpec
from pandastack.store.runners import PoolRecord


@dataclass(frozen=True, slots=True)
class Version:
    """A prepared snapshot. ``made_at`` is in epoch seconds, ``seconds`` how long its commands and the capture took.

    ``network`` is the policy that the machine had; ``oom_kills`` is the kernel's count at the capture. ``directory`` is
    where its checkout is.
    """

    id: str
    made_at: float
    seconds: float
    size_bytes: int
    template: str
    directory: str
    oom_kills: int = 0
    network: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)

    def policy(self, *, trusted: bool) -> NetworkPolicy | None:
        """The policy of a job: that of the prepared machine, with its secrets for a trusted one only.

        Takes milliseconds for a long list: call it in a thread.
        """
        if self.network is None:
            return None
        policy = from_json(self.network)
        return policy if trusted else replace(policy, secrets=())


def spec_of(pool: PoolRecord) -> PoolSpec:
    """What the owner of a pool asked for."""
    return PoolSpec.from_json(pool.spec)


def version_of(pool: PoolRecord) -> Version | None:
    """The prepared version of a pool, if it has one."""
    return None if pool.version is None else Version(**pool.version)
