"""What the client library sends about webhooks."""

from __future__ import annotations

from pandastack import Client
from tests.sdk.wire_server import Reply, WireServer

HOOK = {"id": "w", "url": "https://x.example", "events": ["*"], "enabled": True, "dropped": 0}
DELIVERY = {"id": "d", "event_id": "msg_1", "state": "pending", "attempts": 0}


def test_webhooks_are_made_changed_and_deleted(client: Client, wire: WireServer) -> None:
    secret = {**HOOK, "secret": "whsec_x"}
    wire.will(Reply(201, secret), Reply(200, {"webhooks": [HOOK]}), Reply(200, HOOK), Reply(200, HOOK), Reply(204))
    assert client.webhooks.create("https://x.example", ("build.ended",))["secret"] == "whsec_x"
    assert client.webhooks.list() == [HOOK] and client.webhooks.get("w") == HOOK
    assert client.webhooks.update("w", enabled=False, events=["*"]) == HOOK
    assert client.webhooks.delete("w") is None
    assert wire.lines == [
        *("POST /v1/webhooks", "GET /v1/webhooks", "GET /v1/webhooks/w", "PATCH /v1/webhooks/w"),
        "DELETE /v1/webhooks/w",
    ]
    assert wire.asked[0].json() == {"url": "https://x.example", "events": ["build.ended"], "enabled": True}
    assert wire.asked[3].json() == {"events": ["*"], "enabled": False}


def test_deliveries_are_listed_and_sent_again(client: Client, wire: WireServer) -> None:
    wire.will(
        *(Reply(200, {**HOOK, "secret": "whsec_y"}), Reply(202, DELIVERY)),
        *(Reply(200, {"deliveries": [DELIVERY]}), Reply(202, DELIVERY)),
    )
    assert client.webhooks.rotate("w", overlap_seconds=60)["secret"] == "whsec_y"
    assert client.webhooks.test("w") == DELIVERY
    assert client.webhooks.deliveries("w", limit=5, state="failed") == [DELIVERY]
    assert client.webhooks.redeliver("w", "d/1") == DELIVERY
    assert wire.lines == [
        *("POST /v1/webhooks/w/rotate-secret", "POST /v1/webhooks/w/test"),
        *("GET /v1/webhooks/w/deliveries?limit=5&state=failed", "POST /v1/webhooks/w/deliveries/d%2F1/redeliver"),
    ]
    assert wire.asked[0].json() == {"overlap_seconds": 60}
