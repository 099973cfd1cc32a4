"""The secrets of sandboxes, on the engine's side.

Values are in this process's memory and in the broker's, and nowhere else: after a restart of the engine the control
plane sends them again. What is stored are the names of bound hosts, so that until then connections to them still go to
the broker, which refuses them, rather than around it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from pandastack.broker import Binding, BrokerClient, Use
from pandastack.contract.events import SecretUsed
from pandastack.contract.network import SetSecrets
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.machines.trust import install_authority
from pandastack.engine.sandboxes.events import Events
from pandastack.engine.sandboxes.registry import Registry
from pandastack.errors import ConflictError, PandastackError, UnavailableError
from pandastack.host.files import own_directory, write_atomically
from pandastack.in_guest import TRUST_ENVIRONMENT

NOTHING = SetSecrets()

log = structlog.get_logger(__name__)


Intercept = Callable[[Sandbox, Sequence[str]], Awaitable[None]]
"""Has the connections of a running sandbox to these hosts, and no others, go to the broker when it returns."""


class Brokerage:
    """Which secrets each sandbox has, and where its machine is plugged in."""

    def __init__(
        self,
        directory: Path,
        broker: BrokerClient | None,
        registry: Registry,
        events: Events,
        intercept: Intercept | None = None,
    ) -> None:
        """``broker`` None: this host has none, and no secret can be bound to hosts."""
        self._directory = directory
        self._broker = broker
        self._registry = registry
        self._events = events
        self._intercept = intercept
        self._secrets: dict[str, SetSecrets] = {}
        self._hosts: dict[str, tuple[str, ...]] = {}
        self._slots: dict[str, str] = {}

        own_directory(directory)
        for path in directory.iterdir():
            try:
                self._hosts[path.name] = tuple(map(str, json.loads(path.read_bytes())["hosts"]))
            except (ValueError, KeyError, TypeError) as error:  # never written so: nothing is known of the hosts
                log.error("secrets.hosts_unreadable", sandbox_id=path.name, reason=str(error))

    def sweep(self, sandboxes: Collection[str]) -> None:
        """Drop what belongs to none of these sandboxes."""
        for path in self._directory.iterdir():
            if path.name not in sandboxes:
                path.unlink()
                self._hosts.pop(path.name, None)

    @asynccontextmanager
    async def beginning(self, sandbox_id: str, secrets: SetSecrets | None) -> AsyncIterator[None]:
        """Have the secrets of a sandbox that the block makes ready for it; if it fails, they are forgotten."""
        if self._registry.find(sandbox_id) is None and secrets is not None:
            self.remember(sandbox_id, secrets)
        try:
            yield
        except BaseException:
            if self._registry.find(sandbox_id) is None:
                self.forget(sandbox_id)
            raise

    def env_of(self, sandbox: Sandbox) -> Mapping[str, str]:
        """What commands find in their environment unless they say otherwise."""
        secrets = self._secrets.get(sandbox.id, NOTHING)
        trust = TRUST_ENVIRONMENT if self._hosts.get(sandbox.id) else {}
        return {**{key: text for key, text in trust.items() if key not in sandbox.spec.env}, **secrets.env}

    def hosts_of(self, sandbox_id: str) -> tuple[str, ...]:
        """The hosts to which connections go through the broker."""
        return self._hosts.get(sandbox_id, ())

    def remember(self, sandbox_id: str, secrets: SetSecrets) -> None:
        """Take the secrets of a sandbox that is about to be made, or is hibernated.

        Raises :class:`UnavailableError` when this host cannot bind secrets to hosts.
        """
        self._check(secrets)
        if (hosts := _hosts(secrets)) != self.hosts_of(sandbox_id):
            self._store(sandbox_id, hosts)
        self._secrets[sandbox_id] = secrets

    def _check(self, secrets: SetSecrets) -> None:
        if secrets.bindings and self._broker is None:
            raise UnavailableError("this host has no secret broker", hint="the server must run as root")

    async def set(self, sandbox_id: str, secrets: SetSecrets) -> None:
        """Give a sandbox other secrets. When this returns they are in force: for its connections, and for commands
        that start from now on.

        No placeholder is given to the guest before connections to its hosts go through the broker.
        """
        sandbox = self._registry.get(sandbox_id)
        if isinstance(sandbox, Hibernated) or sandbox.failure:
            self.remember(sandbox_id, secrets)
            return
        async with sandbox.lock:
            self._check(secrets)
            hosts, former = _hosts(secrets), self.hosts_of(sandbox_id)
            if sandbox.paused and not set(hosts) <= set(former):  # its programs cannot be made to trust the broker
                raise ConflictError(f"sandbox {sandbox_id} is paused", hint="resume it first")
            # If this fails halfway, connections to hosts of either are refused: none passes the broker by.
            self._store(sandbox_id, tuple(dict.fromkeys((*former, *hosts))))
            await self._enforce(sandbox, secrets, hosts)
            self._store(sandbox_id, hosts)
            self._secrets[sandbox_id] = secrets

    async def _enforce(self, sandbox: Sandbox, secrets: SetSecrets, hosts: Sequence[str]) -> None:
        slot = self._slots.get(sandbox.id)
        if slot is None:
            if hosts:
                message = f"sandbox {sandbox.id} has no network, so no secret can be bound for it"
                raise ConflictError(message, field="network.secrets")
            return
        await self._bind(slot, secrets)
        if not sandbox.paused:
            await self.introduce(sandbox)
        if self._intercept is not None:
            await self._intercept(sandbox, hosts)

    async def introduce(self, sandbox: Sandbox) -> None:
        """Have the guest trust the broker, if it will meet it."""
        if self._broker is not None and self.hosts_of(sandbox.id):
            await install_authority(sandbox.channel, self._broker.ca_pem)

    def inherit(self, parent: str, children: Sequence[str]) -> None:
        """Give copies of a running sandbox its secrets: their programs hold its placeholders."""
        for child in children:
            self.remember(child, self._secrets.get(parent, NOTHING))
            if self.hosts_of(parent):
                self._store(child, self.hosts_of(parent))

    async def plug(self, sandbox_id: str, slot: str) -> tuple[str, ...]:
        """The machine of a sandbox is in ``slot`` now. Returns the hosts to which its connections go to the broker.

        A broker that does not answer gets the secrets when it runs again; until then it takes no connection.
        """
        self._slots[sandbox_id] = slot
        hosts = self.hosts_of(sandbox_id)
        if hosts:
            try:
                await self._bind(slot, self._secrets.get(sandbox_id, NOTHING))
            except PandastackError as error:
                log.warning("secrets.not_bound", sandbox_id=sandbox_id, reason=error.message)
        return hosts

    async def unplug(self, slot: str) -> None:
        """Nobody is in ``slot`` any more: what it had of secrets is forgotten before another machine gets it."""
        self._slots = {sandbox: used for sandbox, used in self._slots.items() if used != slot}
        if self._broker is not None:
            await self._broker.unbind(slot)

    async def _bind(self, slot: str, secrets: SetSecrets) -> None:
        if self._broker is None:
            return
        if not secrets.bindings:  # none, or not sent yet: connections to bound hosts are refused
            await self._broker.unbind(slot)
            return
        bindings = [Binding(each.name, each.placeholder, each.value, each.hosts) for each in secrets.bindings]
        await self._broker.bind(slot, bindings)

    def forget(self, sandbox_id: str) -> None:
        """The sandbox is deleted."""
        self._secrets.pop(sandbox_id, None)
        self._store(sandbox_id, ())

    def used(self, use: Use) -> None:
        """Publish the use of a secret by a sandbox that is known."""
        if self._registry.find(use.sandbox) is not None:
            self._events.publish(SecretUsed(use.sandbox, use.name, use.host, use.method, use.path, use.refused))

    def _store(self, sandbox_id: str, hosts: tuple[str, ...]) -> None:
        path = self._directory / sandbox_id
        if hosts:
            write_atomically(path, json.dumps({"hosts": hosts}).encode())
            self._hosts[sandbox_id] = hosts
        else:
            path.unlink(missing_ok=True)
            self._hosts.pop(sandbox_id, None)


def _hosts(secrets: SetSecrets) -> tuple[str, ...]:
    return tuple(dict.fromkeys(host for each in secrets.bindings for host in each.hosts))
