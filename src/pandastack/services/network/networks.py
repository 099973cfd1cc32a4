"""What sandboxes may reach: look at policies, change them while the sandbox lives, read the egress log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from weakref import WeakValueDictionary

import anyio

from pandastack.cluster import Engines
from pandastack.contract.network import (
    CheckDestination,
    DestinationChecked,
    EgressRecord,
    EgressRecords,
    NetworkState,
)
from pandastack.errors import BadRequestError
from pandastack.model.caller import Caller
from pandastack.model.network import INWARD_PORT, NetworkPolicy, Protocol, Rule
from pandastack.model.network_rules import allowing, allowing_service, to_json
from pandastack.model.network_targets import format_rule, parse_rule
from pandastack.model.services import Service, is_inward, parse_service
from pandastack.services.records.events import NewEvent
from pandastack.services.records.registry import Registry
from pandastack.services.records.service_kinds import ServiceKinds
from pandastack.services.records.status import LIVE
from pandastack.services.secrets.grants import Grants
from pandastack.store.sandboxes import SandboxRecord

_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Destination:
    """A destination of one rule, by its parts; ``host`` may have port and protocol in it, as in a rule."""

    host: str
    port: int | None = None
    protocol: str | None = None

    def rule(self) -> Rule:
        """The rule for it. Raises :class:`BadRequestError`."""
        text = self.host
        if self.port is not None:
            if not 1 <= self.port <= _HIGHEST_PORT:
                raise BadRequestError(f"port: must be from 1 to {_HIGHEST_PORT}", field="port")
            text += f":{self.port}"
        if self.protocol is not None:
            if self.protocol not in list(Protocol):
                raise BadRequestError("protocol: must be 'tcp' or 'udp'", field="protocol")
            text += f"/{self.protocol}"
        return parse_rule(text, "host")

    def service(self) -> Service | None:
        """The service that ``host`` spells as policies do; None: it is a host. Raises :class:`BadRequestError`.

        No host of a rule looks like one: its name has a dot.
        """
        service = parse_service(self.host)
        if service is not None and (self.port is not None or self.protocol is not None):
            field = "port" if self.port is not None else "protocol"
            raise BadRequestError(f"{field}: a service has none beside it", field=field, hint="write KIND:ID:PORT")
        return service

    def question(self) -> CheckDestination:
        """The question whether it may be reached. Raises :class:`BadRequestError`."""
        if is_inward(name := self.host.lower().removesuffix(".")):
            if self.port is None:
                raise BadRequestError("port: is required", field="port", hint=f"that of all services is {INWARD_PORT}")
            if self.protocol not in (None, Protocol.TCP):
                raise BadRequestError("protocol: services are reached by TCP", field="protocol")
            return CheckDestination(name, self.port)
        rule = self.rule()
        target = rule.target.removesuffix("/32") if rule.is_network else rule.target
        if "/" in target or target.startswith("*"):
            raise BadRequestError("host: must be one name or address", field="host")
        if rule.port is None:
            raise BadRequestError("port: is required", field="port")
        return CheckDestination(target, rule.port, rule.protocol or Protocol.TCP)


class Networks:
    """The networks of sandboxes in any state but new, failed and deleted ones; none is woken for it."""

    def __init__(self, registry: Registry, engines: Engines, grants: Grants, kinds: ServiceKinds) -> None:
        self._registry = registry
        self._engines = engines
        self._grants = grants
        self._kinds = kinds
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def get(self, caller: Caller, sandbox_id: str) -> NetworkState:
        """The policy in force, and the bytes so far."""
        record = await self._live(caller, sandbox_id)
        return await self._engines.of(record).networks.get(record.id)

    async def set(self, caller: Caller, sandbox_id: str, policy: NetworkPolicy) -> NetworkState:
        """Give the sandbox another policy. When this returns it is in force, and connections it forbids are cut."""
        return await self._change(caller, sandbox_id, lambda _: policy)

    async def allow(self, caller: Caller, sandbox_id: str, destination: Destination) -> tuple[str, NetworkState]:
        """Allow one destination or service more, and leave the rest of the policy as it is. Returns the rule, too.

        Raises :class:`BadRequestError` for a host that cannot be allowed, :class:`ConflictError` when another rule
        denies it.
        """
        if service := destination.service():
            self._kinds.check_one(caller.workspace, str(service), "host")
            add = partial(allowing_service, service=service)
            return str(service), await self._change(caller, sandbox_id, add)
        rule = await anyio.to_thread.run_sync(destination.rule)
        return format_rule(rule), await self._change(caller, sandbox_id, lambda policy: allowing(policy, rule))

    async def check(self, caller: Caller, sandbox_id: str, destination: Destination) -> DestinationChecked:
        """What would be decided about a connection, by what decides about connections. Nothing is sent or looked up."""
        question = await anyio.to_thread.run_sync(destination.question)
        record = await self._live(caller, sandbox_id)
        return await self._engines.of(record).networks.check(record.id, question)

    async def log(self, caller: Caller, sandbox_id: str, since: int) -> EgressRecords:
        """The oldest records of the egress log after the one numbered ``since``."""
        record = await self._live(caller, sandbox_id)
        return await self._engines.of(record).networks.log(record.id, since)

    @asynccontextmanager
    async def follow(self, caller: Caller, sandbox_id: str, since: int) -> AsyncIterator[AsyncIterator[EgressRecord]]:
        """The same, and then new records as they are made, until the sandbox is deleted."""
        record = await self._live(caller, sandbox_id)
        async with self._engines.of(record).networks.follow_log(record.id, since) as records:
            yield records

    async def _change(
        self, caller: Caller, sandbox_id: str, change: Callable[[NetworkPolicy], NetworkPolicy]
    ) -> NetworkState:
        """One change at a time; shielded, so that record and engine agree."""
        self._registry.get_usable(caller, sandbox_id)
        record = await self._live(caller, sandbox_id)
        engine = self._engines.of(record).networks
        with anyio.CancelScope(shield=True):
            async with self._turns.setdefault(record.id, anyio.Lock()):
                before = await engine.get(record.id)
                policy = change(before.policy)
                self._kinds.check(record.workspace, policy.services, "services", before.policy.services)
                after = before
                if policy != before.policy:
                    async with self._granted(record, before.policy.secrets, policy.secrets):
                        after = await engine.set(record.id, policy)
                shown = to_json(after.policy)
                changed = after.policy != before.policy
                event = NewEvent("sandbox.network_changed", {"network": shown}) if changed else None
                await self._registry.change(record.id, event, network=shown)
        return after

    @asynccontextmanager
    async def _granted(
        self, record: SandboxRecord, former: tuple[str, ...], names: tuple[str, ...]
    ) -> AsyncIterator[None]:
        """Give the sandbox other secrets with the change in the block: new ones are in force before it, so that no
        placeholder passes the broker by; those that are taken away, after it."""
        adds = not set(names) <= set(former)
        if adds:
            await self._grants.send(record, names)
        try:
            yield
        except BaseException:
            if adds:
                await self._grants.send(record, former)
            raise
        if not adds and set(names) != set(former):
            await self._grants.send(record, names)

    async def _live(self, caller: Caller, sandbox_id: str) -> SandboxRecord:
        record = self._registry.get_owned(caller, sandbox_id)
        if record.status not in LIVE:
            raise await self._registry.refusal(record)
        return record
