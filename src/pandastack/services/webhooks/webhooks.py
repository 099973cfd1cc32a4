"""The endpoints of workspaces: where events are sent, with what they are signed, and what came of it."""

from __future__ import annotations

import builtins
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from pandastack.errors import BadRequestError, ConflictError, NotFoundError, QuotaError, ServerError
from pandastack.model.caller import Caller
from pandastack.model.webhooks import TEST, Occurrence
from pandastack.services.records.outbox import MOST_WAITING, Outbox, delivery_of, event_id
from pandastack.services.secrets.secrets import Secrets
from pandastack.services.settings import Settings
from pandastack.services.webhooks.outside import OwnNetworks, Reach
from pandastack.services.webhooks.sender import Sender
from pandastack.services.webhooks.signing import SigningSecret, new_secret
from pandastack.services.webhooks.spec import checked_description, checked_events, checked_url, literal_address
from pandastack.store import Store
from pandastack.store import webhooks as table
from pandastack.store.secrets import WEBHOOKS
from pandastack.store.webhooks import DeliveryRecord, DeliveryState, EndpointRecord

MOST_LISTED = 500
LONGEST_OVERLAP = 7 * 24 * 3600.0
OVERLAP = 24 * 3600.0
"""How long a former secret counts beside the new one."""


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """A wanted endpoint. ``events`` None: all of them."""

    url: str
    events: Sequence[str] | None = None
    description: str | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """New values for an endpoint; None leaves one."""

    url: str | None = None
    events: Sequence[str] | None = None
    description: str | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """An endpoint, and the secret that is shown this once."""

    record: EndpointRecord
    secret: str = field(repr=False)


class Webhooks:
    """Every look-up names a workspace; endpoints of others are not found."""

    def __init__(
        self, store: Store, outbox: Outbox, secrets: Secrets, settings: Settings, own_networks: OwnNetworks
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._secrets = secrets
        self._most = settings.max_webhooks
        self._reach = Reach(settings.webhook_networks, own_networks)
        self._sender = Sender(store, outbox, self._reach, self._secret, settings.webhook_retry_seconds)
        self._changes = anyio.Lock()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Send what is published, until cancelled."""
        await self._secrets.keep_owned(WEBHOOKS, {each.id for each in self._outbox.all()})
        await self._sender.run(task_status=task_status)

    async def publish(self, *occurrences: Occurrence) -> None:
        """Store events for the endpoints that want them. When this returns, they will be sent."""
        await self._outbox.publish(*occurrences)

    async def create(self, caller: Caller, wanted: NewEndpoint) -> Made:
        """Make an endpoint. Raises :class:`BadRequestError`, and :class:`QuotaError` for too many."""
        url = await self._checked(wanted.url)
        events, description = checked_events(wanted.events), checked_description(wanted.description)
        async with self._changes:
            if len(self.list(caller)) >= self._most:
                hint = "delete one, or ask the operator to raise PANDASTACK_MAX_WEBHOOKS"
                raise QuotaError(f"a workspace has at most {self._most} webhooks", hint=hint)
            name = str(uuid.uuid4())
            record = EndpointRecord(
                name, caller.workspace, url, events, description, wanted.enabled, created_at=time.time()
            )
            secret = SigningSecret(new_secret())
            await self._secrets.put_owned(caller.workspace, WEBHOOKS, record.id, secret.to_text())
            await self._outbox.add(record)
        self._sender.begin(record)
        return Made(record, secret.current)

    def list(self, caller: Caller) -> builtins.list[EndpointRecord]:
        """The workspace's endpoints, oldest first."""
        return [each for each in self._outbox.all() if each.workspace == caller.workspace and not each.owner]

    def get(self, caller: Caller, endpoint_id: str) -> EndpointRecord:
        """One endpoint. Raises :class:`NotFoundError`."""
        return self._outbox.get(caller, endpoint_id)

    async def change(self, caller: Caller, endpoint_id: str, wanted: EndpointChange) -> EndpointRecord:
        """Change an endpoint. One that is enabled again gets what has waited for it."""
        self.get(caller, endpoint_id)
        values: dict[str, Any] = {}
        if wanted.url is not None:
            values["url"] = await self._checked(wanted.url)
        if wanted.events is not None:
            values["events"] = checked_events(wanted.events)
        if wanted.description is not None:
            values["description"] = checked_description(wanted.description)
        if wanted.enabled is not None:
            values |= {"enabled": wanted.enabled, "disabled_reason": None, "failing_since": None}
        async with self._changes:
            record = self.get(caller, endpoint_id)
            if not values:
                return record
            async with self._store.write() as connection:
                changed = await self._outbox.change(connection, record, **values)
        self._outbox.announce([record.id])
        return changed

    async def delete(self, caller: Caller, endpoint_id: str) -> None:
        """Delete an endpoint with its log. What has not been sent is not sent. Raises :class:`NotFoundError`."""
        async with self._changes:
            record = self.get(caller, endpoint_id)
            await self._outbox.remove(record)
            self._sender.end(record)
            await self._secrets.remove_owned(record.workspace, WEBHOOKS, record.id)

    async def check_callback(self, url: str) -> str:
        """A URL for callbacks. Raises :class:`BadRequestError`."""
        return await self._checked(url, "callback")

    async def callbacks(self, workspace: str, owner: str) -> Made:
        """What sends the callbacks of ``owner``, an id: made when it is first asked for."""
        async with self._changes:
            record = self._outbox.find(owner)
            if record is None:
                record = EndpointRecord(owner, workspace, "", (), "", enabled=True, created_at=time.time(), owner=owner)
                await self._secrets.put_owned(workspace, WEBHOOKS, owner, SigningSecret(new_secret()).to_text())
                await self._outbox.add(record)
                self._sender.begin(record)
            return Made(record, (await self._secret(record)).current)

    async def end_callbacks(self, owner: str) -> None:
        """Send nothing more of ``owner``."""
        async with self._changes:
            if (record := self._outbox.find(owner)) is not None:
                await self._outbox.remove(record)
                self._sender.end(record)
                await self._secrets.remove_owned(record.workspace, WEBHOOKS, owner)

    async def rotate(self, caller: Caller, endpoint_id: str, overlap: float | None = None) -> Made:
        """Give an endpoint another secret. For ``overlap`` seconds (24 h) deliveries are signed with both."""
        seconds = OVERLAP if overlap is None else overlap
        if not 0 <= seconds <= LONGEST_OVERLAP:
            message = f"overlap_seconds: must be from 0 to {int(LONGEST_OVERLAP)}"
            raise BadRequestError(message, field="overlap_seconds")
        async with self._changes:
            record = self.get(caller, endpoint_id)
            secret = (await self._secret(record)).rotated(time.time() + seconds)
            await self._secrets.put_owned(record.workspace, WEBHOOKS, record.id, secret.to_text())
        return Made(record, secret.current)

    async def test(self, caller: Caller, endpoint_id: str) -> DeliveryRecord:
        """Send an event that says nothing. Raises :class:`ConflictError` when the endpoint is disabled."""
        record = self._enabled(caller, endpoint_id)
        occurrence = Occurrence(record.workspace, TEST, record.id, {"id": record.id})
        delivery = delivery_of(record, occurrence, event_id(occurrence))
        await self._check_room(record)
        async with self._store.write() as connection:
            await table.add_deliveries(connection, [delivery])
        self._waits(record)
        return delivery

    async def deliveries(
        self, caller: Caller, endpoint_id: str, limit: int, state: DeliveryState | None = None
    ) -> builtins.list[DeliveryRecord]:
        """The newest deliveries of an endpoint, newest first."""
        if not 0 < limit <= MOST_LISTED:
            raise BadRequestError(f"limit: must be from 1 to {MOST_LISTED}", field="limit")
        record = self.get(caller, endpoint_id)
        async with self._store.read() as connection:
            return await table.list_deliveries(connection, record.id, limit, state)

    async def delivery(self, caller: Caller, endpoint_id: str, delivery_id: str) -> DeliveryRecord:
        """One delivery. Raises :class:`NotFoundError`."""
        record = self.get(caller, endpoint_id)
        async with self._store.read() as connection:
            found = await table.find_delivery(connection, record.id, delivery_id)
        if found is None:
            raise NotFoundError(f"delivery not found: {delivery_id[:64]}")
        return found

    async def redeliver(self, caller: Caller, endpoint_id: str, delivery_id: str) -> DeliveryRecord:
        """Send a delivery once more, now, with the same id. One that waits is sent now."""
        record = self._enabled(caller, endpoint_id)
        found = await self.delivery(caller, record.id, delivery_id)
        waits = found.state is DeliveryState.PENDING
        values: dict[str, Any] = {"due_at": time.time()}
        if not waits:
            await self._check_room(record)
            values |= {"state": DeliveryState.PENDING, "attempts": 0, "ended_at": None}
        async with self._store.write() as connection:
            await table.change_delivery(connection, found.id, **values)
        self._waits(record, 0 if waits else 1)
        return replace(found, **values)

    def _waits(self, record: EndpointRecord, more: int = 1) -> None:
        self._outbox.count(record.id, more)
        self._outbox.announce([record.id])

    def _enabled(self, caller: Caller, endpoint_id: str) -> EndpointRecord:
        record = self.get(caller, endpoint_id)
        if not record.enabled:
            hint = f'PATCH /v1/webhooks/{record.id} with {{"enabled": true}} enables it'
            raise ConflictError(f"webhook {record.id} is disabled", hint=hint)
        return record

    async def _check_room(self, record: EndpointRecord) -> None:
        async with self._store.read() as connection:
            waiting = (await table.pending(connection)).get(record.id, 0)
        if waiting >= MOST_WAITING:
            raise QuotaError(f"{waiting} deliveries wait for this webhook already")

    async def _checked(self, url: str, field: str = "url") -> str:
        checked = checked_url(url, plain=self._reach.has_exceptions, field=field)
        address = literal_address(checked)
        if address is not None and not await self._reach.may_reach(address, plain=checked.startswith("http:")):
            hint = "the operator allows private networks in PANDASTACK_WEBHOOK_NETWORKS"
            message = f"{field}: {address} is not an address that webhooks may reach"
            raise BadRequestError(message, field=field, hint=hint)
        return checked

    async def _secret(self, record: EndpointRecord) -> SigningSecret:
        text = await self._secrets.owned_value(record.workspace, WEBHOOKS, record.id)
        if text is None:
            raise ServerError(f"the secret of webhook {record.id} is not stored")
        return SigningSecret.from_text(text)
