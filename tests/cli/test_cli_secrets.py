"""``pandastack secret``: values come from files and standard input, and are printed nowhere."""

from __future__ import annotations

from pathlib import Path

from tests.sdk.wire_server import Reply, WireServer
from tests.support.cli import Cli

RECORD = {"name": "KEY", "hosts": ["a.example.org"], "placeholder": "pds-secret-x", "updated_at": "2026-01-01"}


def test_the_value_comes_from_a_file(wire: WireServer, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("the-value\n")
    wire.will(Reply(201, RECORD))
    made = cli("secret", "create", "KEY", "--host", "a.example.org", "--from-file", str(tmp_path / "value"))
    assert made.exit_code == 0 and "pds-secret-x" in made.stdout and "the-value" not in made.output
    assert wire.asked[0].json() == {"name": "KEY", "value": "the-value", "hosts": ["a.example.org"]}


def test_hosts_can_be_changed_alone(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, RECORD))
    assert cli("secret", "update", "KEY", "--keep-value", "--host", "b.example.org").exit_code == 0
    assert wire.asked[0].json() == {"hosts": ["b.example.org"]}


def test_a_missing_file_is_an_error(wire: WireServer, cli: Cli) -> None:
    failed = cli("secret", "create", "KEY", "--from-file", "missing")
    assert failed.exit_code == 1 and "cannot read the value" in failed.stderr
    assert wire.asked == []


def test_list_and_delete(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, {"secrets": [RECORD, {"name": "PLAIN", "hosts": []}]}))
    listed = cli("secret", "list").stdout
    assert "a.example.org" in listed and "(environment)" in listed
    wire.will(Reply(404, {"error": "secret not found: A", "code": "not_found"}), Reply(404), Reply(204))
    assert cli("secret", "delete", "A", "KEY").exit_code == 1
    assert wire.lines[-1] == "DELETE /v1/secrets/KEY"
