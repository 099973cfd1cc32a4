"""The network policies of sandboxes: which a new one gets, changes while it lives, and what has passed.

The policy is a part of the sandbox's specification, which the journal and the captures store. So a wake, a rewind and
the adoption by the next engine have it, and machines are connected by it before their programs run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import anyio

from pandastack.contract.network import NetworkState, Traffic
from pandastack.contract.sandboxes import needing_secrets
from pandastack.engine import origins
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.sandboxes.egress_log import EgressLog
from pandastack.engine.sandboxes.registry import Registry
from pandastack.errors import BadRequestError, ConflictError
from pandastack.model.network import OPEN, Egress, NetworkPolicy
from pandastack.model.network_rules import from_json
from pandastack.model.template import Template

NO_NETWORK = NetworkPolicy(Egress.NONE)


def _no_hosts(_sandbox_id: str) -> Sequence[str]:
    return ()


class Networks:
    """Policies, counters and the egress log. ``hosts_of`` gives the names that a sandbox's secrets are bound to."""

    def __init__(
        self,
        registry: Registry,
        asleep: CaptureStore,
        log: EgressLog,
        *,
        has_slots: bool,
        hosts_of: Callable[[str], Sequence[str]] = _no_hosts,
    ) -> None:
        self._registry = registry
        self._asleep = asleep
        self._log = log
        self._has_slots = has_slots
        self._hosts_of = hosts_of
        self._turns: dict[str, anyio.Lock] = {}
        self._ended: dict[str, tuple[int, int]] = {}
        """Bytes of a sandbox's former machines, which took their counters with them."""

    def choose(self, wanted: NetworkPolicy | None, template: Template, secrets: Collection[str] = ()) -> NetworkPolicy:
        """The policy of a new sandbox that gets these ``secrets``. Raises :class:`BadRequestError` for one that this
        host cannot enforce, and for a template's that names other secrets."""
        if wanted is not None:
            self.check(wanted)
            return wanted
        policy = OPEN if template.network is None else from_json(template.network)
        if not set(policy.secrets) <= set(secrets):
            raise needing_secrets(policy.secrets)
        return policy if self._has_slots else replace(NO_NETWORK, secrets=policy.secrets)

    def check(self, policy: NetworkPolicy) -> None:
        """Raise :class:`BadRequestError` for a policy that this host cannot enforce."""
        if not self._has_slots and policy.egress is not Egress.NONE:
            raise BadRequestError(
                'network: sandboxes have no network here, so only "none" is possible',
                field="network",
                hint="a server that runs as root gives them one: `pandastack doctor` says what is missing",
            )

    async def state(self, sandbox_id: str) -> NetworkState:
        """The policy in force, and the bytes so far. Raises :class:`NotFoundError`."""
        found = self._registry.get(sandbox_id)
        bytes_in, bytes_out = await self._bytes(found)
        return NetworkState(found.spec.network, bytes_in, bytes_out)

    async def traffic(self) -> tuple[Traffic, ...]:
        """The bytes of all sandboxes."""
        return tuple([Traffic(each.id, *await self._bytes(each)) for each in self._registry.list()])

    async def change(self, sandbox_id: str, policy: NetworkPolicy) -> NetworkState:
        """Give the sandbox another policy, in whatever state it is; returns once it is in force.

        Shielded: a caller that leaves does not leave it half done. A machine has it at once, even while it is being
        captured; what replaces the machine meanwhile (a rewind, a wake) gets it as well.
        """
        self.check(policy)
        self._registry.get(sandbox_id)
        with anyio.CancelScope(shield=True):
            async with self._turns.setdefault(sandbox_id, anyio.Lock()):
                while not await self._settle(sandbox_id, policy):
                    pass
        return await self.state(sandbox_id)

    async def _settle(self, sandbox_id: str, policy: NetworkPolicy) -> bool:
        """Apply the policy to what the sandbox is now. False: it has become something else meanwhile."""
        found = self._registry.get(sandbox_id)
        if isinstance(found, Sandbox):
            await self._apply(self._registry.get_live(sandbox_id), policy)
        async with found.lock:
            if self._registry.get(sandbox_id) is not found:
                return False
            if isinstance(found, Hibernated):
                spec = replace(found.spec, network=policy)
                await anyio.to_thread.run_sync(origins.write_spec, self._asleep.path(sandbox_id), spec)
                found.spec = spec
        return True

    async def _apply(self, sandbox: Sandbox, policy: NetworkPolicy) -> None:
        """Have the policy in force, then record it: the caller has its answer only when both are done."""
        if sandbox.cable.slot.connected:
            await sandbox.cable.change(policy, self._hosts_of(sandbox.id))
        elif policy.egress is not Egress.NONE:
            raise ConflictError(f"sandbox {sandbox.id} was made without a network", hint="create a new one")
        sandbox.spec = replace(sandbox.spec, network=policy)
        sandbox.journal.set_network(policy)

    async def keep_counters(self, sandbox: Sandbox) -> None:
        """Add the bytes of a machine that is about to end to those of the sandbox's former ones."""
        self._ended[sandbox.id] = await self._bytes(sandbox)

    def forget(self, sandbox_id: str) -> None:
        """Drop what belongs to a deleted sandbox."""
        self._ended.pop(sandbox_id, None)
        self._turns.pop(sandbox_id, None)
        self._log.forget(sandbox_id)

    async def _bytes(self, sandbox: Sandbox | Hibernated) -> tuple[int, int]:
        before = self._ended.get(sandbox.id, (0, 0))
        if not isinstance(sandbox, Sandbox) or sandbox.failure:
            return before
        now = await sandbox.cable.counters()
        return before[0] + now[0], before[1] + now[1]
