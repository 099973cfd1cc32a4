"""``pandastack github``: tokens come from standard input, and are printed nowhere."""

from __future__ import annotations

import json

from tests.sdk.wire_server import Reply, WireServer
from tests.support.cli import Cli

SHOWN = {"login": "octocat", "webhook_url": "https://x.example/v1/github/hooks/1"}


def test_connect_status_and_disconnect(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, {**SHOWN, "webhook_secret": "the-secret"}), Reply(200, SHOWN), Reply(204))
    made = cli("github", "connect", input="ghp_x\n")
    assert made.exit_code == 0 and "the-secret" in made.stdout and "ghp_x" not in made.output
    assert wire.asked[0].json() == {"token": "ghp_x"}
    assert json.loads(cli("github", "status", "--json").stdout) == SHOWN
    assert cli("github", "disconnect").stdout == "disconnected\n"
