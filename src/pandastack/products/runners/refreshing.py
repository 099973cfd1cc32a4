"""Prepares pools anew at the times of their cron expressions.

A time at which no server ran is made up for once, when the next one starts: what is prepared would be stale.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from pandastack.products.runners.pools import Pools
from pandastack.products.runners.records import Records
from pandastack.services.records.alarm import Alarm

LONGEST_SLEEP_SECONDS = 30.0
"""So soon a change of the host's clock is noticed."""
RETRY_SECONDS = 5.0
"""Until a refresh is tried again that could not begin."""

log = structlog.get_logger(__name__)


class Refreshing:
    """Watches the pools of all workspaces."""

    def __init__(self, records: Records, pools: Pools, clock: Callable[[], float] = time.time) -> None:
        self._records = records
        self._pools = pools
        self._clock = clock
        self._alarm = Alarm(clock)
        pools.expected = self._alarm.expect

    async def watch(self) -> None:
        """Begin what is due, as it is due. Runs until cancelled."""
        while True:
            failed = await self.refresh_due()
            times = [each.refresh_at for each in self._records.pools.values() if each.refresh_at is not None]
            now = self._clock()
            soonest = max(min(times, default=float("inf")), now + RETRY_SECONDS if failed else now)
            await self._alarm.sleep_until(min(soonest, now + LONGEST_SLEEP_SECONDS))

    async def refresh_due(self) -> bool:
        """Begin every refresh that is due; whether one could not."""
        failed, now = False, self._clock()
        for pool in list(self._records.pools.values()):
            if pool.refresh_at is None or pool.refresh_at > now:
                continue
            try:
                await self._pools.refresh_due(pool, now)
            except Exception as error:  # one pool must not stop the others
                log.error("runner_pool.not_refreshed", pool=pool.id, exc_info=error)
                failed = True
        return failed
