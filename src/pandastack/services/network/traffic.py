"""The bytes of all sandboxes, asked of the engines again and again: records and metrics are read without waiting."""

from __future__ import annotations

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from pandastack.cluster import Engines
from pandastack.contract.network import Traffic
from pandastack.errors import PandastackError

INTERVAL_SECONDS = 10.0
_NOTHING = (0, 0)

log = structlog.get_logger(__name__)


class TrafficCounters:
    """The last known bytes in and out of each sandbox, and the sums over all that there ever were."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._latest: dict[str, dict[str, tuple[int, int]]] = {}
        """By node and sandbox."""
        self.total_in = 0
        self.total_out = 0

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Ask all engines until cancelled."""
        task_status.started()
        while True:
            for node, engine in self._engines.all().items():
                try:
                    self.take(node, await engine.networks.traffic())
                except PandastackError as error:
                    log.warning("traffic.unknown", node=node, reason=error.message)
            await anyio.sleep(INTERVAL_SECONDS)

    def take(self, node: str, counters: tuple[Traffic, ...]) -> None:
        """Note what a node's engine has counted. Its counters begin anew when it does."""
        former, self._latest[node] = (
            self._latest.get(node, {}),
            {each.id: (each.bytes_in, each.bytes_out) for each in counters},
        )
        for sandbox_id, now in self._latest[node].items():
            before = former.get(sandbox_id, _NOTHING)
            began = now[0] < before[0] or now[1] < before[1]
            self.total_in += now[0] - (0 if began else before[0])
            self.total_out += now[1] - (0 if began else before[1])

    def of(self, node: str, sandbox_id: str) -> tuple[int, int]:
        """Bytes in and out of a sandbox, some seconds old."""
        return self._latest.get(node, {}).get(sandbox_id, _NOTHING)
