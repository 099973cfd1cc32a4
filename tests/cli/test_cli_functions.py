"""``pandastack fn``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pandastack import Client
from pandastack.cli.workspace import function, function_dev
from pandastack.cli.workspace.function_dev import Session
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
    wire.will(Reply(200, [MADE]), Reply(202, {**RUN, "status": "running"}))
    options = ("--retries", "2", "--callback", "https://a.test/")
    assert cli("fn", "invoke", "f", "--async", *options).stdout == "r1\n"
    assert wire.asked[-1].json() == {"input": None, "async": True, "retries": 2, "callback": "https://a.test/"}
    assert "are for --async" in cli("fn", "invoke", "f", *options).stderr
    wire.will(Reply(200, [MADE]), Reply(200, {"secret": "whsec_x"}))
    assert cli("fn", "callback-secret", "f").stdout == "whsec_x\n"
    wire.will(Reply(200, []))
    assert "function not found" in cli("fn", "invoke", "g").stderr


def test_a_kept_machine(wire: WireServer, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {**FAILED, "kept_until": "2026-01-01T00:00:00Z"}
    wire.will(Reply(200, [MADE]), Reply(200, kept), Reply(200, []))
    assert "pandastack fn debug r1" in cli("fn", "invoke", "f", "--keep", "60").stderr
    assert wire.asked[-1].json() == {"input": None, "keep_seconds": 60}
    gone = cli("fn", "debug", "r1")
    assert gone.exit_code == 1 and "no machine of run r1 is kept" in gone.stderr and "--keep" in gone.stderr
    opened = list[tuple[str, str]]()

    def run(sandbox_id: str, _: str, command: str) -> int:
        opened.append((sandbox_id, command))
        return 7

    monkeypatch.setattr(function, "run_terminal", run)
    wire.will(Reply(200, [{"id": "s1"}]), Reply(200, [{"id": "s1"}]))
    shell, pdb = cli("fn", "debug", "r1"), cli("fn", "debug", "r1", "--pdb")
    assert (shell.exit_code, pdb.exit_code) == (7, 7) and "pandastack sandbox delete s1" in shell.stderr
    assert [each for each, _ in opened] == ["s1", "s1"]
    assert opened[0][1].startswith("cd /fn") and opened[1][1].endswith("pandastack_debug.py")
    assert wire.lines[-1].startswith("GET /v1/sandboxes?metadata.run=r1")


def test_dev(wire: WireServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text("1")
    with Client(wire.url, "token") as client:
        session = Session(client, tmp_path, "f", "python", None, None)
        wire.will(Reply(200, [MADE]), Reply(200, MADE), Reply(200, [RUN]))
        session.look()
        assert "f version 2 in " in capsys.readouterr().out
        wire.will(Reply(200, [{**FAILED, "id": "r2"}, RUN]), Reply(200, [{**FAILED, "id": "r2"}, RUN]))
        session.look()
        said = capsys.readouterr().out
        assert "r2" in said and "E: x" in said and "r1" not in said, "only runs since the deploy"
        session.look()
        assert capsys.readouterr().out == "", "each of them once"
        handler.write_text("22")
        (tmp_path / "__pycache__").mkdir()
        wire.will(Reply(200, []))
        session.look()
        assert capsys.readouterr().out == "", "it may still be written"
        refused = {"error": "cannot be imported", "detail": {"traceback": "line 1"}}
        wire.will(Reply(200, [MADE]), Reply(400, refused))
        session.look()
        said = capsys.readouterr().err
        assert "line 1" in said and "cannot be imported" in said
        (tmp_path / "__pycache__" / "x").write_text("")
        wire.will(Reply(503, {"error": "busy"}))
        session.look()
        assert "busy" in capsys.readouterr().err
        handler.write_text("333")
        wire.will(Reply(200, []))
        session.look()
        wire.will(Reply(200, [MADE]), Reply(200, {**MADE, "version": 3}))
        session.look()
        assert "f version 3 in " in capsys.readouterr().out


def test_dev_ends_by_ctrl_c(wire: WireServer, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(function_dev.time, "sleep", interrupted)
    wire.will(Reply(200, [MADE]), Reply(200, MADE), Reply(200, []))
    ended = cli("fn", "dev", str(tmp_path), "--name", "f")
    assert (ended.exit_code, "serves on" in ended.stderr) == (0, True)
    assert cli("fn", "dev", str(tmp_path / "none")).exit_code == 1


def test_looks(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, [MADE]), Reply(200, [MADE]), Reply(200, MADE), Reply(200, [MADE]), Reply(200, [FAILED, RUN]))
    assert "handler" in cli("fn", "list").stdout
    assert json.loads(cli("fn", "get", "f", "--json").stdout) == MADE
    logs = cli("fn", "logs", "f").stdout
    assert logs.index("success") < logs.index("error") and "  E: x" in logs
    wire.will(Reply(200, [MADE]), Reply(200, {**MADE, "version": 1}), Reply(200, [MADE]), Reply(204))
    assert cli("fn", "rollback", "f", "--version", "1").stdout == "f version 1\n"
    assert cli("fn", "delete", "f").exit_code == 0


def test_a_deploy_with_secrets_and_a_network(wire: WireServer, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("x = 1")
    warned = {**MADE, "warnings": ["a global looks unique"]}
    wire.will(
        Reply(200, []), Reply(200, MADE), Reply(200, warned), Reply(200, [MADE]), Reply(200, MADE), Reply(200, MADE)
    )
    options = ("--secret", "API_KEY", "--secret", "OTHER", "--allow", "api.example.org")
    made = cli("fn", "deploy", str(tmp_path / "f.py"), *options)
    assert made.exit_code == 0 and "warning: a global looks unique" in made.stderr
    assert cli("fn", "deploy", str(tmp_path / "f.py"), "--network", "deny").exit_code == 0
    lines = ("POST /v1/functions", "PATCH /v1/functions/f1")
    bodies = [each.json() for line, each in zip(wire.lines, wire.asked, strict=True) if line in lines]
    granted = {"secrets": ["API_KEY", "OTHER"], "network": {"egress": {"allow": ["api.example.org"]}}}
    assert granted.items() <= bodies[0].items() and bodies[1] == {"network": {"egress": "deny"}}
    assert cli("fn", "deploy", str(tmp_path / "f.py"), "--network", "deny", *options).exit_code == 2


def test_aliases(wire: WireServer, cli: Cli) -> None:
    live = {"name": "live", "version": 2}
    wire.will(
        Reply(200, [MADE]), Reply(200, live), Reply(200, [MADE]), Reply(200, [live]), Reply(200, [MADE]), Reply(204)
    )
    assert "live" in cli("fn", "alias", "f", "live", "2").stdout
    assert json.loads(cli("fn", "alias", "f", "--json").stdout) == [live]
    assert cli("fn", "alias", "f", "live", "--delete").exit_code == 0
    wire.will(Reply(200, [MADE]), Reply(200, live), Reply(200, [MADE]), Reply(200, RUN))
    assert json.loads(cli("fn", "alias", "f", "live", "--json").stdout) == live
    assert cli("fn", "invoke", "f", "--alias", "live").exit_code == 0
    assert wire.asked[-1].json() == {"input": None, "alias": "live"}
    assert cli("fn", "alias", "f", "--delete").exit_code == 2
