"""What the client library sends about registries, and what it makes of the answers."""

from __future__ import annotations

from pandastack import Client
from pandastack.sdk._types import Registry
from tests.sdk.wire_server import Reply, WireServer

RECORD = {"host": "r.example:5000", "username": "me", "created_at": "2026-01-01T00:00:00Z", "new": 1}
REGISTRY = Registry("r.example:5000", "me", "2026-01-01T00:00:00Z")


def test_credentials_are_put_listed_and_deleted(client: Client, wire: WireServer) -> None:
    wire.will(Reply(200, RECORD), Reply(200, {"registries": [RECORD]}), Reply(204))
    assert client.registries.put("r.example:5000", "me", "word") == REGISTRY
    assert client.registries.list() == [REGISTRY]
    assert client.registries.delete("r.example:5000") is None
    one = "/v1/registries/r.example%3A5000"
    assert wire.lines == [f"PUT {one}", "GET /v1/registries", f"DELETE {one}"]
    assert wire.asked[0].json() == {"username": "me", "password": "word"}
