"""``pandastack workspace``."""

from __future__ import annotations

from tests.sdk.wire_server import Reply, WireServer
from tests.support.cli import Cli

RECORD = {"id": "default", "created_at": "2026-01-01T00:00:00Z", "previews": "private"}


def test_settings_are_shown_and_changed(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, RECORD), Reply(200, RECORD), Reply(200, RECORD))
    assert "private" in cli("workspace", "get").stdout
    assert "private" in cli("workspace", "update", "--previews", "private").stdout
    assert cli("workspace", "update", "--json").exit_code == 0
    assert wire.lines == ["GET /v1/workspace", "PATCH /v1/workspace", "PATCH /v1/workspace"]
    assert [wire.asked[at].json() for at in (1, 2)] == [{"previews": "private"}, {}]
    assert cli("workspace", "update", "--previews", "closed").exit_code == 2
    assert len(wire.asked) == 3
