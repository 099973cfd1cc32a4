"""Endpoints of outgoing webhooks, and their deliveries."""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import Field, StrictBool

from pandastack.api.models.base import Answer, Body, Number, omitted_if_none, timestamp, timestamp_or_none
from pandastack.services.webhooks.webhooks import EndpointChange, Made, NewEndpoint
from pandastack.store.webhooks import DeliveryRecord, DeliveryState, EndpointRecord

_EVENTS = "Types, `sandbox.*` for all of a noun, `*` for all"


class CreateWebhook(Body):
    url: str = Field(description="https://…", examples=["https://hooks.example/pandastack"])
    events: list[str] | None = Field(None, description=f"{_EVENTS}; by default all")
    description: str | None = Field(None, description="Up to 256 characters for people")
    enabled: StrictBool = True

    def wanted(self) -> NewEndpoint:
        return NewEndpoint(self.url, self.events, self.description, self.enabled)


class ChangeWebhook(Body):
    url: str | None = None
    events: list[str] | None = Field(None, description=_EVENTS)
    description: str | None = None
    enabled: StrictBool | None = Field(None, description="True also forgets why the server has disabled it")

    def wanted(self) -> EndpointChange:
        return EndpointChange(self.url, self.events, self.description, self.enabled)


class RotateWebhookSecret(Body):
    overlap_seconds: Number | None = Field(
        None, description="How long deliveries are signed with the former secret, too; 86400 by default"
    )


class Webhook(Answer):
    id: str
    url: str
    events: list[str]
    description: str
    enabled: bool
    created_at: str
    disabled_reason: str | None = omitted_if_none("Why the server has disabled it")
    failing_since: str | None = omitted_if_none("The first failure since the last success")
    dropped: int = Field(description="Events that found its queue full, and were not stored")

    @classmethod
    def of(cls, record: EndpointRecord, **more: Any) -> Self:
        return cls(
            id=record.id,
            url=record.url,
            events=list(record.events),
            description=record.description,
            enabled=record.enabled,
            created_at=timestamp(record.created_at),
            disabled_reason=record.disabled_reason,
            failing_since=timestamp_or_none(record.failing_since),
            dropped=record.dropped,
            **more,
        )


class WebhookWithSecret(Webhook):
    secret: str = Field(description="What deliveries are signed with, `whsec_…`; shown this once")

    @classmethod
    def made(cls, made: Made) -> Self:
        return cls.of(made.record, secret=made.secret)


class Webhooks(Answer):
    webhooks: list[Webhook]


class WebhookEvent(Answer):
    type: str
    description: str


class WebhookEvents(Answer):
    events: list[WebhookEvent]


class WebhookDelivery(Answer):
    id: str
    event_id: str = Field(description="`webhook-id` of the request: the same for every attempt")
    type: str
    state: DeliveryState
    attempts: int
    created_at: str
    due_at: str | None = omitted_if_none("When the next attempt is made")
    ended_at: str | None = omitted_if_none()
    status: int | None = omitted_if_none("The receiver's last status")
    error: str | None = omitted_if_none("Why there was none")
    message: dict[str, Any] = Field(description="What is sent: `type`, `timestamp` and `data`")

    @classmethod
    def of(cls, record: DeliveryRecord) -> Self:
        return cls(
            id=record.id,
            event_id=record.event_id,
            type=record.type,
            state=record.state,
            attempts=record.attempts,
            created_at=timestamp(record.created_at),
            due_at=timestamp(record.due_at) if record.state is DeliveryState.PENDING else None,
            ended_at=timestamp_or_none(record.ended_at),
            status=record.status,
            error=record.error,
            message=json.loads(record.body),
        )


class WebhookDeliveries(Answer):
    deliveries: list[WebhookDelivery]
