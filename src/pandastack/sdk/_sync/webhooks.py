# Generated from ../_async/webhooks.py by scripts/generate_sync.py: change that file, not this one.
"""Where events of the workspace are sent."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import cast

from pandastack.sdk._sync.interfaces import Connection
from pandastack.sdk._webhooks import (
    Webhook,
    WebhookDelivery,
    change_webhook,
    create_webhook,
    given,
    list_deliveries,
    listed,
    path_of,
)
from pandastack.sdk.wire.call import Call, segment


class WebhooksAPI:
    """The workspace's webhooks. Receivers check what comes with any library of the Standard Webhooks."""

    def __init__(self, client: Connection) -> None:
        self._client = client

    def create(
        self, url: str, events: Sequence[str] | None = None, *, description: str | None = None, enabled: bool = True
    ) -> Webhook:
        """Have events sent to ``url``: all, or those of ``events``, such as ``["build.ended", "sandbox.*"]``.

        The result has the ``secret`` that they are signed with, which is never shown again. Raises BadRequestError.
        """
        return self._one(create_webhook(url, events, description, enabled))

    def list(self) -> builtins.list[Webhook]:
        """The webhooks, oldest first, without their secrets."""
        found = self._client.transport.list(Call("GET", "/webhooks"), "webhooks")
        return cast("builtins.list[Webhook]", found)

    def get(self, webhook_id: str) -> Webhook:
        """One webhook, without its secret. Raises NotFoundError."""
        return self._one(Call("GET", path_of(webhook_id)))

    def update(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        description: str | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        """Change a webhook; None leaves a value. One that is enabled again gets what has waited for it."""
        values = {"url": url, "events": listed(events), "description": description, "enabled": enabled}
        return self._one(change_webhook(webhook_id, **values))

    def delete(self, webhook_id: str) -> None:
        """Delete a webhook with its log. Raises NotFoundError."""
        self._client.transport.run(Call("DELETE", path_of(webhook_id)))

    def rotate(self, webhook_id: str, *, overlap_seconds: float | None = None) -> Webhook:
        """Give it another ``secret``. For a day, or ``overlap_seconds``, deliveries have signatures by both."""
        body = given(overlap_seconds=overlap_seconds)
        return self._one(Call("POST", path_of(webhook_id, "/rotate-secret"), json=body))

    def test(self, webhook_id: str) -> WebhookDelivery:
        """Send the event ``webhook.test``. Raises ConflictError for a webhook that is disabled."""
        return self._delivery(Call("POST", path_of(webhook_id, "/test")))

    def deliveries(
        self, webhook_id: str, *, limit: int = 50, state: str | None = None
    ) -> builtins.list[WebhookDelivery]:
        """What was sent and what waits, newest first: of all states or one."""
        found = self._client.transport.list(list_deliveries(webhook_id, limit, state), "deliveries")
        return cast("builtins.list[WebhookDelivery]", found)

    def redeliver(self, webhook_id: str, delivery_id: str) -> WebhookDelivery:
        """Send a delivery once more, with the same id."""
        path = path_of(webhook_id, f"/deliveries/{segment(delivery_id)}/redeliver")
        return self._delivery(Call("POST", path))

    def _one(self, call: Call) -> Webhook:
        return cast(Webhook, self._client.transport.object(call))

    def _delivery(self, call: Call) -> WebhookDelivery:
        return cast(WebhookDelivery, self._client.transport.object(call))
