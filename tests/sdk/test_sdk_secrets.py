"""What the client library sends about secrets, and what it makes of the answers."""

from __future__ import annotations

from pandastack import Client, Secret
from tests.sdk.wire_server import Reply, WireServer

RECORD = {
    "name": "KEY",
    "hosts": ["a.example.org"],
    "placeholder": "pds-secret-x",
    "created_at": "2026-01-01T00:00:00Z",
    "new": 1,
}
SECRET = Secret("KEY", ("a.example.org",), "pds-secret-x", "2026-01-01T00:00:00Z")


def test_secrets_are_made_changed_listed_and_deleted(client: Client, wire: WireServer) -> None:
    wire.will(Reply(201, RECORD), Reply(200, RECORD), Reply(200, {"secrets": [RECORD]}), Reply(200, RECORD), Reply(204))
    assert client.secrets.create("KEY", "value", hosts=["a.example.org"]) == SECRET
    assert client.secrets.update("KEY", value="other") == SECRET
    assert client.secrets.list() == [SECRET]
    assert client.secrets.get("KEY") == SECRET
    assert client.secrets.delete("KEY") is None
    one = "/v1/secrets/KEY"
    assert wire.lines == ["POST /v1/secrets", f"PUT {one}", "GET /v1/secrets", f"GET {one}", f"DELETE {one}"]
    assert wire.asked[0].json() == {"name": "KEY", "value": "value", "hosts": ["a.example.org"]}
    assert wire.asked[1].json() == {"value": "other"}


def test_the_key_is_rotated(client: Client, wire: WireServer) -> None:
    wire.will(Reply(200, {"secrets": 3}))
    assert client.secrets.rotate_key() == 3
    assert wire.lines == ["POST /v1/secrets/rotate-key"]
