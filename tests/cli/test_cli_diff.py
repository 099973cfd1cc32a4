"""``pandastack sandbox diff``: the table, the patch, JSON, and text of guests that is not for terminals."""

from __future__ import annotations

import json

import pytest

from pandastack.cli.sandbox import diff
from tests.sdk.wire_server import DIFF, FILE, RECORD, Reply, WireServer
from tests.support.cli import Cli

FOUND = Reply(200, RECORD)


def test_the_table(cli: Cli, wire: WireServer) -> None:
    wire.will(FOUND, Reply(200, DIFF))
    done = cli("sandbox", "diff", "0b5f", "k1", "--to", "k2")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["PATH", "KIND", "SIZE", "WHAT"],
        ["+", "/a", "file", "3", "-"],
        ["~", "/b", "file", "3", "content", "(not", "compared)"],
    ]
    assert done.stderr == "only 2 of 8 changes are shown\n"
    assert wire.lines[-1] == "GET /v1/sandboxes/0b5f/diff?from=k1&to=k2"


def test_json_and_patch(cli: Cli, wire: WireServer) -> None:
    wire.will(FOUND, Reply(200, DIFF), FOUND, Reply(200, DIFF))
    assert json.loads(cli("sandbox", "diff", "0b5f", "--json").stdout)["changes"][0]["path"] == "/a"
    done = cli("sandbox", "diff", "0b5f", "--patch")
    assert (done.stdout, done.exit_code) == ("+a\n", 0)
    assert "~ /b (file): no text to show" in done.stderr
    assert wire.lines[-1] == "GET /v1/sandboxes/0b5f/diff?from=template&to=now&patch=1"


def test_names_and_text_of_a_guest_do_not_control_a_terminal(
    cli: Cli, wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {"path": "/a\x1b[2J\n", "kind": "file", "change": "added", "after": FILE, "patch": "+\x1b]0;x\t\u202e\n"}
    wire.will(FOUND, Reply(200, {"added": 1, "changes": [odd]}))
    assert "/a\\x1b[2J\\n" in cli("sandbox", "diff", "0b5f").stdout
    text = "+\x1b]0;x\t\u202e\n"
    assert diff._shown(text) == text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert diff._shown(text) == "+\\x1b]0;x\t\\u202e\n"
