"""``pandastack registry``: passwords come from standard input, and are printed nowhere."""

from __future__ import annotations

import json

from tests.sdk.wire_server import Reply, WireServer
from tests.support.cli import Cli

RECORD = {"host": "r.example:5000", "username": "me", "updated_at": "2026-01-01"}


def test_the_password_comes_from_standard_input(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, RECORD))
    done = cli("registry", "login", "r.example:5000", "--username", "me", "--json", input="the-word\n")
    assert done.exit_code == 0 and json.loads(done.stdout)["username"] == "me" and "the-word" not in done.output
    assert wire.asked[0].json() == {"username": "me", "password": "the-word"}


def test_list_and_logout(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, {"registries": [RECORD]}), Reply(204), Reply(404, {"error": "no credentials"}))
    assert "r.example:5000" in cli("registry", "list").stdout
    assert cli("registry", "logout", "r.example:5000").exit_code == 0
    assert cli("registry", "logout", "other.example").exit_code == 1
