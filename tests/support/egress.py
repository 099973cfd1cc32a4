"""A slot that the egress process serves, and what it decided."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from pandastack.egress.client import EgressProcess, Slot
from pandastack.egress.log import Decision
from pandastack.model.network import Egress, NetworkPolicy, Rule
from tests.support.egress_world import World

UID = 61_307
"""The user that the process becomes; nobody else has it."""

POLICY = NetworkPolicy(
    Egress.LIST,
    allow=(
        Rule("allowed.test"),
        Rule("*.wild.test"),
        Rule("private.test"),
        Rule("meta.test"),
        Rule("flip.test"),
        Rule("git.test", 22),
        Rule("xn--bcher-kva.test"),
    ),
)


@dataclass
class Subject:
    """``decisions`` are all that came, in order."""

    world: World
    egress: EgressProcess
    slot: Slot
    decisions: list[Decision] = field(default_factory=list)

    async def decided(self, *, allowed: bool, name: str = "", rule: str = "") -> Decision:
        """The first decision of that kind; it is waited for."""
        with anyio.fail_after(30):
            while True:
                for each in self.decisions:
                    if each.allowed is allowed and each.name.startswith(name) and each.rule.startswith(rule):
                        return each
                await anyio.sleep(0.01)
