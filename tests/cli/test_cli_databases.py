"""``pandastack db``."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.wire_server import Reply, WireServer
from tests.support.cli import Cli

MAKING: dict[str, Any] = {"id": "d1", "status": "provisioning", "label": "x", "size": "1g"}
RUNNING: dict[str, Any] = {
    **MAKING,
    "status": "running",
    "host": "d1.localhost",
    "port": 5432,
    "database": "pandastack",
    "username": "pandastack",
    "password": "p",
    "connection_url": "postgres://pandastack:p@d1.localhost:5432/pandastack",
}


def test_the_life_of_a_database(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(202, MAKING), Reply(200, RUNNING), Reply(200, [MAKING]), Reply(200, RUNNING))
    assert cli("db", "create", "--label", "x", "--always-on").stdout == f"d1\n{RUNNING['connection_url']}\n"
    assert wire.asked[0].json() == {"label": "x", "always_on": True}
    listed = cli("db", "list").stdout
    assert "d1" in listed and "provisioning" in listed
    assert RUNNING["connection_url"] in cli("db", "get", "d1").stdout
    wire.will(Reply(202, {**MAKING, "id": "d2"}), Reply(200, {**RUNNING, "id": "d2"}), Reply(200, RUNNING))
    assert cli("db", "branch", "d1", "--label", "b").stdout.startswith("d2\n")
    assert "always" not in cli("db", "reset-credentials", "d1").stdout
    wire.will(Reply(409, {"error": "database d9 is busy", "code": "conflict"}), Reply(204))
    deleted = cli("db", "delete", "d9", "d1")
    assert deleted.exit_code == 1 and "d9" in deleted.stderr
    assert wire.lines[-1] == "DELETE /v1/databases/d1"


def test_sleep_and_wake(wire: WireServer, cli: Cli) -> None:
    wire.will(*[Reply(200, RUNNING)] * 2, Reply(202, MAKING), Reply(200, RUNNING))
    assert [cli("db", "update", "d1", each).exit_code for each in ("--sleep", "--always-on")] == [0, 0]
    assert [each.json() for each in wire.asked] == [{"always_on": False}, {"always_on": True}]
    assert cli("db", "wake", "d1").stdout.startswith("d1\n")


def test_a_larger_disk(wire: WireServer, cli: Cli) -> None:
    wire.will(*[Reply(200, {**RUNNING, "disk_gb": 20})] * 2)
    assert "20" in cli("db", "update", "d1", "--disk", "20").stdout
    assert json.loads(cli("db", "update", "d1", "--disk", "20", "--json").stdout)["disk_gb"] == 20
    assert [each.json() for each in wire.asked] == [{"disk_gb": 20}] * 2
    for wrong in ((), ("--disk", "0"), ("--disk", "much")):
        assert cli("db", "update", "d1", *wrong).exit_code == 2


def test_numbers_and_log(wire: WireServer, cli: Cli) -> None:
    numbers = {"postgres_version": "16.14", "db_size_bytes": 7 << 20, "connections": 3, "cache_hit_ratio": None}
    wire.will(*[Reply(200, numbers)] * 2, *[Reply(200, {"logs": "a\n\x1b[2Jb\n"})] * 2)
    shown = cli("db", "stats", "d1").stdout
    assert "16.14" in shown and "7 MB" in shown
    assert json.loads(cli("db", "stats", "d1", "--json").stdout) == numbers
    assert cli("db", "logs", "d1", "-n", "50").stdout == "a\n\\x1b[2Jb\n"
    assert json.loads(cli("db", "logs", "d1", "--json").stdout) == {"logs": "a\n\x1b[2Jb\n"}
    assert wire.lines[2] == "GET /v1/databases/d1/logs?lines=50"
    assert cli("db", "logs", "d1", "-n", "5").exit_code == 2


def test_json(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, [MAKING]), Reply(200, RUNNING), Reply(202, MAKING), Reply(200, RUNNING), Reply(204))
    assert json.loads(cli("db", "list", "--json").stdout) == [MAKING]
    assert json.loads(cli("db", "get", "d1", "--json").stdout) == RUNNING
    assert json.loads(cli("db", "create", "--json").stdout) == RUNNING
    assert json.loads(cli("db", "delete", "d1", "--json").stdout) == {"deleted": ["d1"]}


def test_psql_gets_the_password_where_no_other_user_sees_it(
    wire: WireServer, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execvpe", lambda *given: started.append(given))
    monkeypatch.setattr(shutil, "which", lambda _name: "/usr/bin/psql")
    monkeypatch.delenv("PGSSLMODE", raising=False)
    wire.will(Reply(200, RUNNING), Reply(200, {**RUNNING, "host": "d1.db.example.org"}), Reply(200, MAKING))
    cli("db", "psql", "d1", "--", "-c", "select 1")
    cli("db", "psql", "d1")
    (program, argv, environment), (_, _, elsewhere) = started
    assert (program, argv) == ("psql", ["psql", "-c", "select 1"])
    names = ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGSSLMODE", "PGHOSTADDR")
    values = ["d1.localhost", "5432", "pandastack", "pandastack", "p", "require", "127.0.0.1"]
    assert [environment[name] for name in names] == values
    assert elsewhere["PGHOST"] == "d1.db.example.org" and "PGHOSTADDR" not in elsewhere
    early = cli("db", "psql", "d1")
    assert early.exit_code == 1 and "provisioning" in early.stderr and len(started) == 2
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert "postgresql-client" in cli("db", "psql", "d1").stderr


def test_earlier_states(wire: WireServer, cli: Cli) -> None:
    kept: dict[str, Any] = {
        "archive": {"state": "archiving", "size_bytes": 9 << 20},
        "windows": [{"earliest": "2026-01-01T00:00:00Z", "latest": "2026-01-02T00:00:00Z"}],
        "bases": [{"created_at": "2026-01-01T00:00:00Z", "size_bytes": 8 << 20}],
        "drill": {"at": "2026-01-01T01:00:00Z", "seconds": 3.25, "error": "no"},
    }
    wire.will(*[Reply(201, kept)] * 2, *[Reply(200, kept)] * 2, *[Reply(202, MAKING), Reply(200, RUNNING)] * 2)
    assert cli("db", "backup", "d1").stdout == "2026-01-01T00:00:00Z  8 MB\n"
    assert json.loads(cli("db", "backup", "d1", "--json").stdout) == kept
    shown = cli("db", "backups", "d1").stdout
    assert "archiving" in shown and "2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z" in shown and "8 MB" in shown
    assert "2026-01-01T01:00:00Z: no (3.2 s)" in shown
    assert json.loads(cli("db", "backups", "d1", "--json").stdout) == kept
    restored = cli("db", "restore", "d1", "--to", "2026-01-01T12:00:00Z", "--label", "x", "--size", "4g")
    assert restored.stdout.startswith("d1\n")
    assert wire.asked[4].json() == {"target_time": "2026-01-01T12:00:00Z", "label": "x", "size": "4g"}
    assert json.loads(cli("db", "restore", "d1", "--json").stdout) == RUNNING


def test_statements(wire: WireServer, cli: Cli) -> None:
    columns = [{"name": "id", "type": "int4"}, {"name": "what", "type": "json"}, {"name": "no", "type": "text"}]
    found = {"columns": columns, "rows": [[1, {"a": 1}, None]], "count": 1, "truncated": True, "rows_affected": 1}
    changed = {"columns": [], "rows": [], "count": 0, "truncated": False, "rows_affected": 3}
    wire.will(Reply(200, found), Reply(200, found), Reply(200, changed))
    shown = cli("db", "query", "d1", "SELECT $1", "-p", "5", "--read-only")
    assert (
        shown.stdout.split() == ["id", "what", "no", "1", '{"a":', "1}", "NULL"] and "more than these 1" in shown.stderr
    )
    assert json.loads(cli("db", "query", "d1", "SELECT 1", "--json").stdout) == found
    assert "3 rows affected" in cli("db", "query", "d1", "DELETE FROM x", "-d", "other").stderr
    asked = [each.json() for each in wire.asked]
    assert asked[0] == {"sql": "SELECT $1", "params": ["5"], "read_only": True, "database": "pandastack"}
    assert asked[2]["database"] == "other"


def test_dumps(wire: WireServer, cli: Cli, tmp_path: Path) -> None:
    dump, refused = tmp_path / "dump", {"error": "relation exists", "code": "bad_request"}
    wire.will(Reply(200, b"PGDMP."), Reply(200, b"PGDMP."), Reply(404, {"error": "no"}), Reply(404, {"error": "no"}))
    assert cli("db", "export", "d1").stdout == "PGDMP."
    assert json.loads(cli("db", "export", "d1", "-o", str(dump), "--plain", "--json").stdout)["bytes"] == 6
    assert dump.read_bytes() == b"PGDMP."
    dump.write_bytes(b"former")
    assert cli("db", "export", "d9", "-o", str(dump)).exit_code == 1
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir() if each.is_file()] == [("dump", b"former")]
    wire.will(Reply(204), Reply(400, refused))
    assert cli("db", "import", "d1", str(dump), "--clean").exit_code == 0
    assert wire.asked[-1].body == b"former" and wire.lines[-1].endswith("/import?clean=1&database=pandastack")
    assert "relation exists" in cli("db", "import", "d1", str(dump)).stderr


def test_a_reset(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(202, MAKING), Reply(200, RUNNING))
    assert cli("db", "reset", "d1").stdout.startswith("d1\n")
    assert wire.lines == ["POST /v1/databases/d1/reset", "GET /v1/databases/d1"]
