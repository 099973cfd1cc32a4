"""Sends what waits: one task for each endpoint, so that a slow receiver holds up nobody else."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from pandastack.errors import PandastackError
from pandastack.services.records.outbox import Outbox
from pandastack.services.webhooks.outside import Outside, Reach, open_outside
from pandastack.services.webhooks.retries import plan_next
from pandastack.services.webhooks.signing import SigningSecret
from pandastack.store import Store
from pandastack.store import webhooks as table
from pandastack.store.webhooks import DeliveryRecord, EndpointRecord

KEPT_DELIVERIES = 500
"""Ended deliveries of an endpoint that stay in its log."""
_LONGEST_SLEEP = 60.0
"""The clock may be set meanwhile."""
_PAUSE_AFTER_FAULT = 5.0

SecretOf = Callable[[EndpointRecord], Awaitable[SigningSecret]]

log = structlog.get_logger(__name__)


class Sender:
    """The tasks of all endpoints. What is stored is sent at least once; what was sent and not noted is sent again."""

    def __init__(self, store: Store, outbox: Outbox, reach: Reach, secret_of: SecretOf, first_pause: float) -> None:
        self._store = store
        self._outbox = outbox
        self._reach = reach
        self._secret_of = secret_of
        self._first_pause = first_pause
        self._lanes: dict[str, anyio.CancelScope] = {}
        self._tasks: TaskGroup | None = None
        self._outside: Outside | None = None

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Send until cancelled."""
        async with open_outside(self._reach) as self._outside, anyio.create_task_group() as self._tasks:
            for endpoint in self._outbox.all():
                self.begin(endpoint)
            task_status.started()
            await anyio.sleep_forever()

    def begin(self, endpoint: EndpointRecord) -> None:
        """Send to an endpoint from now on."""
        if self._tasks is not None:
            self._tasks.start_soon(self._lane, endpoint.id)

    def end(self, endpoint: EndpointRecord) -> None:
        """Send nothing more to it."""
        if (scope := self._lanes.pop(endpoint.id, None)) is not None:
            scope.cancel()

    async def _lane(self, endpoint_id: str) -> None:
        with anyio.CancelScope() as scope:
            self._lanes[endpoint_id] = scope
            while self._outbox.find(endpoint_id) is not None:
                try:
                    await self._step(endpoint_id)
                except PandastackError as error:
                    log.warning("webhook.not_sent", endpoint=endpoint_id, reason=error.message)
                    await anyio.sleep(_PAUSE_AFTER_FAULT)
                except Exception as error:  # one endpoint must not end the others
                    log.error("webhook.broken", endpoint=endpoint_id, exc_info=error)
                    await anyio.sleep(_PAUSE_AFTER_FAULT)

    async def _step(self, endpoint_id: str) -> None:
        """Send what is due, or wait until something is."""
        more, endpoint = self._outbox.more(endpoint_id), self._outbox.find(endpoint_id)
        if endpoint is None or not endpoint.enabled:
            await more.wait()
            return
        async with self._store.read() as connection:
            delivery = await table.next_delivery(connection, endpoint_id)
        if delivery is None:
            if not more.is_set():
                self._outbox.is_empty(endpoint_id)
            await more.wait()
        elif (left := delivery.due_at - time.time()) > 0:
            with anyio.move_on_after(min(left, _LONGEST_SLEEP)):
                await more.wait()
        else:
            await self._send(endpoint, delivery)

    async def _send(self, endpoint: EndpointRecord, delivery: DeliveryRecord) -> None:
        assert self._outside is not None
        secret = await self._secret_of(endpoint)
        headers = {
            "content-type": "application/json",
            "user-agent": "pandastack-webhooks",
            **secret.headers(delivery.event_id, delivery.body, time.time()),
        }
        answer = await self._outside.post(delivery.url or endpoint.url, headers, delivery.body)
        current = self._outbox.find(endpoint.id)
        if current is None:
            return
        chance = random.random()  # no secret
        after = plan_next(current, delivery, answer, time.time(), self._first_pause, chance)
        async with self._store.write() as connection:
            await table.change_delivery(connection, delivery.id, **after.delivery)
            if after.endpoint:
                await self._outbox.change(connection, current, **after.endpoint)
            if "ended_at" in after.delivery:
                await table.prune_deliveries(connection, endpoint.id, KEPT_DELIVERIES)
        if "ended_at" in after.delivery:
            self._outbox.count(endpoint.id, -1)
        if "disabled_reason" in after.endpoint:
            log.warning("webhook.disabled", endpoint=endpoint.id, reason=after.endpoint["disabled_reason"])
