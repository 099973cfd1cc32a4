"""``pandastack fn``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.sdk.wire_server import Reply, WireServer
from tests.support.cli import Cli

MADE: dict[str, Any] = {"id": "f1", "name": "f", "version": 2, "runtime": "python", "kind": "handler"}
RUN: dict[str, Any] = {"id": "r1", "status": "success", "result": {"n": 3}, "stdout": "out\n", "stderr": ""}
FAILED = {**RUN, "status": "error", "result": None, "error": "E", "traceback": "Traceback\nE: x"}


def test_a_deploy(wire: WireServer, cli: Cli, tmp_path: Path) -> None:
    made = cli("fn", "init", str(tmp_path / "f"))
    assert made.exit_code == 0 and "def handler" in (tmp_path / "f" / "handler.py").read_text()
    assert cli("fn", "init", str(tmp_path / "f")).exit_code == 1
    assert cli("fn", "init", str(tmp_path / "g"), "--runtime", "cobol").exit_code == 1
    wire.will(Reply(200, [MADE]), Reply(200, MADE))
    assert cli("fn", "deploy", str(tmp_path / "f")).stdout == "f1\nf version 2\n"
    refused = {"error": "cannot be imported", "code": "bad_request", "detail": {"traceback": "line 1", "stderr": ""}}
    wire.will(Reply(200, [MADE]), Reply(400, refused))
    failed = cli("fn", "deploy", str(tmp_path / "f" / "handler.py"), "--name", "f")
    assert failed.exit_code == 1 and "line 1" in failed.stderr and "cannot be imported" in failed.stderr


def test_calls(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, [MADE]), Reply(200, RUN), Reply(200, [MADE]), Reply(200, FAILED))
    assert cli("fn", "invoke", "f", '{"n": 1}').stdout == 'out\n{"n": 3}\n'
    failed = cli("fn", "invoke", "f1")
    assert (failed.exit_code, "E: x" in failed.stderr) == (1, True)
    assert cli("fn", "invoke", "f", "{").exit_code == 1
    wire.will(Reply(200, [MADE]), Reply(202, {**RUN, "status": "running"}))
    assert cli("fn", "invoke", "f", "--async").stdout == "r1\n"
    wire.will(Reply(200, []))
    assert "function not found" in cli("fn", "invoke", "g").stderr


def test_looks(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, [MADE]), Reply(200, [MADE]), Reply(200, MADE), Reply(200, [MADE]), Reply(200, [FAILED, RUN]))
    assert "handler" in cli("fn", "list").stdout
    assert json.loads(cli("fn", "get", "f", "--json").stdout) == MADE
    logs = cli("fn", "logs", "f").stdout
    assert logs.index("success") < logs.index("error") and "  E: x" in logs
    wire.will(Reply(200, [MADE]), Reply(200, {**MADE, "version": 1}), Reply(200, [MADE]), Reply(204))
    assert cli("fn", "rollback", "f", "--version", "1").stdout == "f version 1\n"
    assert cli("fn", "delete", "f").exit_code == 0
