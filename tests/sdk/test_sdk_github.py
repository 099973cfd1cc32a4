"""What the client library and the command line send about the connection to GitHub."""

from __future__ import annotations

from pandastack import Client
from tests.sdk.wire_server import Reply, WireServer

SHOWN = {"login": "octocat", "webhook_url": "https://x.example/v1/github/hooks/1"}


def test_a_token_is_stored_and_forgotten(client: Client, wire: WireServer) -> None:
    wire.will(Reply(200, {**SHOWN, "webhook_secret": "s"}), Reply(200, SHOWN), Reply(204))
    assert client.github.connect("ghp_x")["webhook_secret"] == "s"
    assert client.github.connection() == SHOWN
    assert client.github.disconnect() is None
    one = "/v1/github/connection"
    assert wire.lines == [f"PUT {one}", f"GET {one}", f"DELETE {one}"]
    assert wire.asked[0].json() == {"token": "ghp_x"}
