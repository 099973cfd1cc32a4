"""The egress process: carries out the engine's orders and reports decisions.

It ends when the engine's end of the socket pair is closed, so it never outlives its engine.
"""

from __future__ import annotations

import os
import resource
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from pandastack.egress.log import Decision
from pandastack.egress.route import Rules
from pandastack.egress.slot import Places, SlotServer
from pandastack.egress.upstream import Upstream
from pandastack.egress.wire import Link, policy_from_wire

RESERVE = 512
"""Descriptors that are no connections: questions to the host's servers, the process's own."""

BACKLOG = 20_000
"""Decisions that wait for the engine at most; further ones are counted."""

_FLUSH_SECONDS = 0.05


class Egress:
    """The slots of one engine."""

    def __init__(self, link: Link, tasks: TaskGroup) -> None:
        self._link, self._tasks = link, tasks
        self._slots: dict[str, SlotServer] = {}
        self._places = Places(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVE)
        self._decisions: deque[tuple[str, Decision]] = deque()
        self._new = anyio.Event()
        self._upstream = Upstream()
        self._forbidden: tuple[str, ...] = ()
        self._broker: Path | None = None
        self._gateway: Path | None = None
        self._held: list[int] = []

    async def obey(self) -> None:
        """Carry out orders until the engine closes its end."""
        while received := await self._link.receive():
            order, descriptors = received
            try:
                await self._carry_out(order, descriptors)
                error = None
            except (KeyError, TypeError, ValueError, OSError) as failure:
                error = f"{type(failure).__name__}: {failure}"
            await self._link.send({"answer": order["id"], "error": error})

    async def _carry_out(self, order: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        match order["do"]:
            case "begin":
                self._forbidden = tuple(order["forbidden"])
                self._broker = Path(order["broker"]) if order["broker"] else None
                self._gateway = Path(order["gateway"]) if order["gateway"] else None
                servers = [(address, port) for address, port in order["servers"]]
                self._upstream = Upstream(servers or None)
            case "hold":
                self._hold(descriptors)
            case "open":
                self._open(order, descriptors)
            case "change":
                self._slots[order["key"]].apply(self._rules(order))
            case "ping":
                pass
            case "close":
                if server := self._close(order["key"]):
                    await server.wait_closed()
            case other:
                raise ValueError(f"unknown order {other!r}")

    def _hold(self, descriptors: Sequence[int]) -> None:
        """Have the gate open until this process ends: nothing is done with the descriptor."""
        former, self._held = self._held, list(descriptors)
        for each in former:
            os.close(each)

    def _rules(self, order: Mapping[str, Any]) -> Rules:
        return Rules(policy_from_wire(order["policy"]), tuple(order["hosts"]), self._forbidden)

    def _open(self, order: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        key = order["key"]
        try:
            rules = self._rules(order)
            if len(descriptors) not in (4, 5):
                raise ValueError(f"a slot has 4 or 5 sockets, not {len(descriptors)}")
        except (KeyError, TypeError, ValueError):
            for each in descriptors:
                os.close(each)
            raise
        self._close(key)
        self._places.left -= len(descriptors)
        server = self._slots[key] = SlotServer(
            key,
            order["sandbox"],
            descriptors,
            rules,
            upstream=self._upstream,
            broker=self._broker,
            gateway=self._gateway,
            places=self._places,
            report=lambda decision: self._report(key, decision),
        )
        self._tasks.start_soon(server.run)

    def _close(self, key: str) -> SlotServer | None:
        """Begin to close the slot, if there is one."""
        server = self._slots.pop(key, None)
        if server is not None:
            server.close()
            self._places.left += server.descriptors
        return server

    def _report(self, key: str, decision: Decision) -> None:
        if len(self._decisions) < BACKLOG:
            self._decisions.append((key, decision))
            self._new.set()

    async def report(self) -> None:
        """Send decisions to the engine, several at once."""
        while True:
            await self._new.wait()
            await anyio.sleep(_FLUSH_SECONDS)
            self._new = anyio.Event()
            while self._decisions:
                count = min(len(self._decisions), 500)
                batch = [self._decisions.popleft() for _ in range(count)]
                await self._link.send({"decisions": [[key, asdict(each)] for key, each in batch]})

    async def count_dropped(self) -> None:
        """Report dropped decisions also when none follow."""
        while True:
            await anyio.sleep(1)
            for each in self._slots.values():
                each.log.flush()


async def serve(control: socket.socket) -> None:
    """Serve the engine at the other end of ``control`` until it is gone."""
    link = Link(control)
    async with anyio.create_task_group() as tasks:
        egress = Egress(link, tasks)
        tasks.start_soon(egress.count_dropped)
        tasks.start_soon(egress.report)
        with suppress(OSError):
            await link.send({"ready": True})
            await egress.obey()
        tasks.cancel_scope.cancel()
