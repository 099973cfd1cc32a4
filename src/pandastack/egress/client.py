"""The engine's side of the egress process: starts it, gives it orders, and starts it again when it dies or hangs.

What was ordered is remembered with its descriptors, so a new process gets all of it. While there is none, guests have
no names and no proxy, and the gate is shut: no packet passes.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import anyio
import structlog

from pandastack.egress.log import Decision
from pandastack.egress.running import Running
from pandastack.egress.wire import Link, policy_to_wire
from pandastack.errors import NotFoundError, ServerError
from pandastack.host.processes.limits import limiting_descriptors
from pandastack.host.processes.run import CommandError, spawn
from pandastack.host.tasks import beside
from pandastack.model.network import NetworkPolicy

log = structlog.get_logger(__name__)

DESCRIPTORS = 65_536
"""The most descriptors of the process; it bounds its connections by them."""

START_SECONDS, PING_SECONDS = 20.0, 5.0
FIRST_DELAY, LONGEST_DELAY, HEALTHY_SECONDS = 0.05, 5.0, 5.0
"""Seconds before a process is started again: doubled each time, until one has lived for ``HEALTHY_SECONDS``."""


class Gate(Protocol):
    """What lets packets of guests pass while the process lives. Methods block for a moment and raise ``OSError``."""

    def open(self) -> int | None:
        """Open it until the returned descriptor and its copies are closed; None: until it is shut."""
        ...

    def shut(self) -> None:
        """Shut it, if nothing that lives has it open."""
        ...


@dataclass(frozen=True)
class Slot:
    """What the process serves. ``udp``, ``tcp``, ``proxy`` and ``inward`` are descriptors of listeners inside the slot,
    ``refused`` of the socket that hears what its packet filter refuses, if there is one. They stay the caller's, who
    may close them after the order."""

    key: str
    sandbox: str
    udp: int
    tcp: int
    proxy: int
    inward: int
    refused: int | None = None

    @property
    def listeners(self) -> tuple[int, ...]:
        four = self.udp, self.tcp, self.proxy, self.inward
        return four if self.refused is None else (*four, self.refused)


@dataclass
class _Remembered:
    """``slot`` has descriptors of our own."""

    slot: Slot
    policy: NetworkPolicy
    hosts: tuple[str, ...]

    def order(self, do: str) -> dict[str, Any]:
        order = {"do": do, "key": self.slot.key, "policy": policy_to_wire(self.policy), "hosts": self.hosts}
        return order | {"sandbox": self.slot.sandbox}

    def is_of(self, slot: Slot) -> bool:
        """Whether it is the same sandbox behind the same listeners."""
        ours, theirs = self.slot, slot
        if ours.sandbox != theirs.sandbox or len(ours.listeners) != len(theirs.listeners):
            return False
        return all(map(os.path.sameopenfile, ours.listeners, theirs.listeners))

    def forget(self) -> None:
        for each in self.slot.listeners:
            os.close(each)


class EgressProcess:
    """The egress process of an engine, made by :func:`open_egress`."""

    def __init__(
        self,
        directory: Path,
        uid: int | None,
        begin: Mapping[str, Any],
        on_decision: Callable[[str, Decision], None],
        gate: Gate | None,
    ) -> None:
        self._directory, self._uid, self._begin = directory, uid, begin
        self._on_decision, self._gate = on_decision, gate
        self._slots: dict[str, _Remembered] = {}
        self._unsent: set[str] = set()
        self._sent: set[str] = set()
        self._starting: Running | None = None
        self._running: Running | None = None
        self._settled = anyio.Event()

    @property
    def pid(self) -> int | None:
        """The process that serves now; None while there is none."""
        return self._running.pid if self._running else None

    async def ready(self) -> None:
        """Wait until a process serves everything that was ordered."""
        while self._running is None:
            await self.settled()

    async def settled(self) -> None:
        """Wait until a process has begun to serve, or has ended."""
        await self._settled.wait()

    async def open(self, slot: Slot, policy: NetworkPolicy, hosts: Sequence[str] = ()) -> None:
        """Serve a slot from now on; ``hosts`` are the names that its secrets are bound to.

        Returns when the process has it, or at once while there is none: the next one gets it. The same slot again is
        like :meth:`change`; with another sandbox or other listeners everything of before ends.
        """
        known = self._slots.get(slot.key)
        if known and known.is_of(slot):
            await self.change(slot.key, policy, hosts)
            return
        udp, tcp, proxy, inward, *refused = map(os.dup, slot.listeners)
        mine = Slot(slot.key, slot.sandbox, udp, tcp, proxy, inward, *refused)
        if mine.refused is not None:
            _drain(mine.refused)
        self._slots[slot.key] = _Remembered(mine, policy, tuple(hosts))
        if known:
            known.forget()
        if server := self._server_of(slot.key):
            await self._send_open(server, slot.key)
        else:
            self._unsent.add(slot.key)

    async def change(self, key: str, policy: NetworkPolicy, hosts: Sequence[str]) -> None:
        """Replace what a slot may reach. When this returns, nothing obeys the old policy any more: connections that the
        new one forbids are cut. Raises :class:`NotFoundError`."""
        remembered = self._slots.get(key)
        if remembered is None:
            raise NotFoundError(f"egress: no slot {key}")
        remembered.policy, remembered.hosts = policy, tuple(hosts)
        await self._order(key, remembered.order("change"))

    async def close(self, key: str) -> None:
        """Stop serving a slot and end its connections. Takes two seconds at most; an unknown slot is no error."""
        remembered = self._slots.pop(key, None)
        if remembered is None:
            return
        remembered.forget()
        await self._order(key, {"do": "close", "key": key})

    def _server_of(self, key: str) -> Running | None:
        """The process that has been told of the slot. One that is starting will be told how the slot is then."""
        if self._starting and key in self._sent:
            return self._starting
        return self._running

    async def _order(self, key: str, order: Mapping[str, Any]) -> None:
        if server := self._server_of(key):
            await server.order(order)

    async def _send_open(self, running: Running, key: str) -> None:
        remembered = self._slots[key]
        # Copies: a close meanwhile may close ours.
        descriptors = [os.dup(each) for each in remembered.slot.listeners]
        try:
            await running.order(remembered.order("open"), descriptors)
        finally:
            for each in descriptors:
                os.close(each)

    def forget(self) -> None:
        """Close what is remembered."""
        while self._slots:
            self._slots.popitem()[1].forget()

    async def supervise(self) -> None:
        """Keep a process running."""
        delay = FIRST_DELAY
        while True:
            started = time.monotonic()
            try:
                await self._shut_gate()
                await self._run_once()
            except (OSError, CommandError, ServerError) as error:
                log.warning("egress.failed", reason=str(error))
            finally:
                await self._shut_gate()
            lived = time.monotonic() - started
            delay = FIRST_DELAY if lived > HEALTHY_SECONDS else min(2 * delay, LONGEST_DELAY)
            log.warning("egress.ended", lived=round(lived, 3), restart_in=delay)
            await anyio.sleep(delay)

    async def _run_once(self) -> None:
        ours, theirs = socket.socketpair()
        async with AsyncExitStack() as stack:
            link = stack.enter_context(closing(Link(ours)))
            with theirs, (self._directory / "egress.log").open("ab") as output:
                argv, environment = self._argv(theirs), _environment()
                spawned = spawn(argv, pass_fds=[theirs.fileno()], log=output.fileno(), env=environment)
                process = await stack.enter_async_context(spawned)
            running = Running(process, link, self._on_decision)
            try:
                async with beside(running.listen):
                    await self._serve_with(running)
            finally:
                self._starting = self._running = None
                self._settle()

    def _argv(self, theirs: socket.socket) -> list[str]:
        words = [*limiting_descriptors(DESCRIPTORS), sys.executable, "-P", "-s", "-m", "pandastack.egress"]
        return [*words, str(theirs.fileno()), *([] if self._uid is None else [str(self._uid)])]

    async def _serve_with(self, running: Running) -> None:
        self._starting, self._sent, self._unsent = running, set(), set(self._slots)
        if not await running.begun(START_SECONDS):
            return
        await running.order(self._begin)
        await self._open_gate(running)
        while self._unsent and not running.ended.is_set():
            key = self._unsent.pop()
            if key in self._slots:
                self._sent.add(key)
                try:
                    await self._send_open(running, key)
                except ServerError as error:
                    log.error("egress.refused", slot=key, reason=str(error))
        self._starting = None
        if not running.ended.is_set():
            self._running = running
            log.info("egress.ready", pid=running.pid, slots=len(self._slots))
        self._settle()
        while not running.ended.is_set():
            with anyio.move_on_after(PING_SECONDS):
                await running.ended.wait()
            if not running.ended.is_set():
                await running.order({"do": "ping"})

    async def _open_gate(self, running: Running) -> None:
        """Let packets pass for as long as the process has the descriptor."""
        if self._gate is None:
            return
        opened = await anyio.to_thread.run_sync(self._gate.open)
        if opened is None:
            log.warning("egress.gate_without_owner", hint="use Linux 5.12 or later")
            return
        try:
            await running.order({"do": "hold"}, [opened])
        finally:
            os.close(opened)

    async def _shut_gate(self) -> None:
        """On kernels that do not do it themselves."""
        if self._gate is not None:
            with anyio.CancelScope(shield=True):
                try:
                    await anyio.to_thread.run_sync(self._gate.shut)
                except OSError as error:
                    log.error("egress.gate_not_shut", reason=str(error))

    def _settle(self) -> None:
        self._settled.set()
        self._settled = anyio.Event()


def _drain(refused: int) -> None:
    """Drop what was refused to a former sandbox in the slot: it does not belong to this one."""
    with suppress(OSError):
        while os.read(refused, 65536):
            pass


def _environment() -> dict[str, str]:
    """None of the engine's variables, which may hold keys."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}


@asynccontextmanager
async def open_egress(
    directory: Path,
    uid: int | None,
    forbidden: Sequence[str],
    on_decision: Callable[[str, Decision], None],
    *,
    broker: Path | None = None,
    gateway: Path | None = None,
    servers: Sequence[tuple[str, int]] = (),
    gate: Gate | None = None,
) -> AsyncIterator[EgressProcess]:
    """The egress process for as long as the block runs.

    ``directory`` gets its log. ``uid`` is the user that it becomes; None: ours. ``forbidden`` are the networks that no
    policy allows. ``on_decision`` gets the slot's key and a decision, on the event loop. ``broker`` is the broker's
    socket and ``gateway`` that of the gateway's inward door; that user must be able to reach both. ``servers``
    (address, port) are asked for names instead of the host's. ``gate`` is open while a process serves; None: nothing
    depends on it.
    """
    begin = {
        "do": "begin",
        "forbidden": list(forbidden),
        "broker": None if broker is None else str(broker),
        "gateway": None if gateway is None else str(gateway),
        "servers": [list(each) for each in servers],
    }
    (directory / "egress.log").unlink(missing_ok=True)
    egress = EgressProcess(directory, uid, begin, on_decision, gate)
    try:
        async with beside(egress.supervise):
            with anyio.move_on_after(START_SECONDS):
                await egress.ready()
            yield egress
    finally:
        egress.forget()
