"""The requests of webhooks, and what they return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Required, TypedDict

from pandastack.sdk.wire.call import Call, new_key, segment


class Webhook(TypedDict, total=False):
    """Where events are sent: a dictionary. ``secret`` is there when it was made or rotated, and never again."""

    id: Required[str]
    url: Required[str]
    events: list[str]
    description: str
    enabled: bool
    created_at: str
    disabled_reason: str
    failing_since: str
    dropped: int
    secret: str


class WebhookDelivery(TypedDict, total=False):
    """One event on its way to one webhook: a dictionary. ``state`` is ``pending``, ``delivered`` or ``failed``."""

    id: Required[str]
    event_id: str
    type: str
    state: Required[str]
    attempts: int
    created_at: str
    due_at: str
    ended_at: str
    status: int
    error: str
    message: dict[str, Any]


def create_webhook(url: str, events: Sequence[str] | None, description: str | None, enabled: bool) -> Call:
    """``POST /webhooks``."""
    body = given(url=url, events=listed(events), description=description, enabled=enabled)
    return Call("POST", "/webhooks", json=body, key=new_key())


def change_webhook(webhook_id: str, **values: Any) -> Call:
    """``PATCH /webhooks/{id}``; None leaves a value."""
    return Call("PATCH", path_of(webhook_id), json=given(**values))


def list_deliveries(webhook_id: str, limit: int, state: str | None) -> Call:
    """``GET /webhooks/{id}/deliveries``."""
    return Call("GET", path_of(webhook_id, "/deliveries"), params=given(limit=str(limit), state=state))


def path_of(webhook_id: str, more: str = "") -> str:
    """The path of one webhook."""
    return f"/webhooks/{segment(webhook_id)}{more}"


def listed(events: Sequence[str] | None) -> list[str] | None:
    """Filters as they are sent."""
    return None if events is None else list(events)


def given(**values: Any) -> Mapping[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
