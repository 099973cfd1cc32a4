"""One egress process, as the engine sees it: orders and their answers, decisions, and its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import structlog
from anyio.abc import Process

from pandastack.egress.log import Decision
from pandastack.egress.wire import Link
from pandastack.errors import ServerError

log = structlog.get_logger(__name__)

ORDER_SECONDS, DEATH_SECONDS = 1.0, 0.5
"""How long an order may take before the process counts as hung and is killed, and how long its death is waited for."""


@dataclass
class _Asked:
    done: anyio.Event = field(default_factory=anyio.Event)
    error: str | None = None


class Running:
    """One egress process, from its start to its death."""

    def __init__(self, process: Process, link: Link, on_decision: Callable[[str, Decision], None]) -> None:
        self._process, self._link, self._on_decision = process, link, on_decision
        self._asked: dict[int, _Asked] = {}
        self._count = 0
        self._ready = anyio.Event()
        self.ended = anyio.Event()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def begun(self, patience: float) -> bool:
        """Wait until it takes orders; False: it is dead, killed if it did not begin in time."""
        with anyio.move_on_after(patience):
            await self._ready.wait()
        if not self._ready.is_set():
            await self.kill()
        return not self.ended.is_set()

    async def order(self, order: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Returns when it is carried out, or cannot be any more because the process is gone; a process that hangs is
        killed. Raises :class:`ServerError` when the process refuses."""
        self._count += 1
        number, asked = self._count, _Asked()
        self._asked[number] = asked
        with anyio.CancelScope(shield=True):  # half an order would garble the next; it is bounded anyhow
            try:
                with anyio.fail_after(ORDER_SECONDS):
                    await self._link.send({**order, "id": number, "fds": len(descriptors)}, descriptors)
                    await asked.done.wait()
            except (TimeoutError, OSError) as error:
                log.warning("egress.killed", order=order["do"], reason=str(error) or "it does not answer")
                await self.kill()
            finally:
                self._asked.pop(number, None)
        if asked.error:
            raise ServerError(f"egress: {order['do']}: {asked.error}", public="the egress process refused an order")

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        with anyio.move_on_after(DEATH_SECONDS):
            await self._process.wait()

    async def listen(self) -> None:
        """Take its answers and decisions until it is gone."""
        try:
            while received := await self._link.receive():
                message, descriptors = received
                for each in descriptors:
                    os.close(each)
                if message.get("ready"):
                    self._ready.set()
                if asked := self._asked.get(message.get("answer", 0)):
                    asked.error = message["error"]
                    asked.done.set()
                for key, decision in message.get("decisions", ()):
                    self._decided(key, Decision(**decision))
        except (OSError, ValueError, TypeError, KeyError, ServerError) as error:
            log.warning("egress.unreadable", reason=str(error))
        finally:
            self.ended.set()
            self._ready.set()
            for asked in self._asked.values():
                asked.done.set()

    def _decided(self, key: str, decision: Decision) -> None:
        try:
            self._on_decision(key, decision)
        except Exception:
            log.exception("egress.decision")
