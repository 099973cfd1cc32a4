"""``pandastack webhook``: secrets are shown once, and states with their reasons."""

from __future__ import annotations

import json

from tests.sdk.wire_server import Reply, WireServer
from tests.support.cli import Cli

HOOK = {"id": "w", "url": "https://x.example", "events": ["build.ended"], "enabled": True}
FAILED = {"id": "d", "type": "build.ended", "state": "failed", "attempts": 8, "status": 500}


def test_a_secret_is_shown_when_it_is_made(wire: WireServer, cli: Cli) -> None:
    wire.will(*[Reply(201, {**HOOK, "secret": "whsec_x"})] * 2)
    made = cli("webhook", "create", "https://x.example", "--event", "build.ended", "--event", "sandbox.*")
    assert made.exit_code == 0 and "whsec_x" in made.stdout and "not shown again" in made.stderr
    assert wire.asked[0].json()["events"] == ["build.ended", "sandbox.*"]
    assert json.loads(cli("webhook", "rotate", "w", "--overlap", "0", "--json").stdout)["secret"] == "whsec_x"


def test_lists_show_states_and_reasons(wire: WireServer, cli: Cli) -> None:
    gone = {**HOOK, "enabled": False, "disabled_reason": "the receiver says that it is gone (410)"}
    failing = {**HOOK, "failing_since": "2026-01-01"}
    wire.will(Reply(200, {"webhooks": [HOOK, gone, failing]}), Reply(200, {"deliveries": [FAILED]}))
    shown = cli("webhook", "list").stdout
    assert "disabled: the receiver says that it is gone (410)" in shown and "failing since 2026-01-01" in shown
    assert "failed (500)" in cli("webhook", "deliveries", "w").stdout


def test_changes(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, HOOK), Reply(202, FAILED), Reply(202, FAILED), Reply(204), Reply(404, {"error": "no"}))
    assert cli("webhook", "update", "w", "--enable").exit_code == 0
    assert wire.asked[0].json() == {"enabled": True}
    assert cli("webhook", "test", "w").stdout == "d\n" == cli("webhook", "redeliver", "w", "d").stdout
    assert cli("webhook", "delete", "w", "v").exit_code == 1
