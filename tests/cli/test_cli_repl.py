"""``pandastack sandbox repl``: what is sent of what is typed, and what is shown."""

from __future__ import annotations

import base64
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pandastack.cli.app import build_app
from pandastack.cli.sandbox.repl import is_complete
from tests.sdk.wire_server import RECORD, Reply, WireServer

SESSIONS = "/v1/sandboxes/0b5f/repl/sessions"
OPENED = [Reply(200, RECORD), Reply(201, {"id": "s"})]
CLOSED = Reply(204)
RAN = {"stdout": "out\n", "stderr": "err\n", "exit": 0, "error": None, "results": [], "duration_ms": 1}


def test_standard_input_is_one_cell(wire: WireServer, tmp_path: Path) -> None:
    picture = {"image/png": base64.b64encode(b"png").decode(), "text/plain": "<Figure>"}
    wire.will(*OPENED, Reply(200, RAN | {"results": [picture, {"text/plain": "42"}]}), CLOSED)
    argv = ["sandbox", "repl", "0b5f", "--language", "py", "--timeout", "2.5", "--save", str(tmp_path / "new")]
    done = CliRunner().invoke(build_app(), argv, input="a = 1\na\n")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "out\n42\n", f"err\nsaved {tmp_path}/new/1.png\n")
    assert json.loads(wire.asked[2].body) == {"code": "a = 1\na\n", "timeout_ms": 2500}
    assert wire.lines[1:] == [f"POST {SESSIONS}", f"POST {SESSIONS}/s/run", f"DELETE {SESSIONS}/s"]
    assert (tmp_path / "new/1.png").read_bytes() == b"png"


@pytest.mark.parametrize(
    ("reply", "status", "shown"),
    [
        (Reply(200, RAN | {"exit": 1, "error": "Traceback"}), 1, "Traceback"),
        (Reply(200, RAN | {"exit": 7}), 7, "err"),
        (Reply(500, {"error": "cell timeout after 2s", "code": "command_timeout"}), 124, "cell timeout after 2s"),
    ],
)
def test_the_exit_status(wire: WireServer, reply: Reply, status: int, shown: str) -> None:
    wire.will(*OPENED, reply, CLOSED)
    done = CliRunner().invoke(build_app(), ["sandbox", "repl", "0b5f"], input="1/0")
    assert done.exit_code == status and shown in done.stderr


def test_at_a_terminal_each_statement_is_a_cell(wire: WireServer) -> None:
    timeout = Reply(500, {"error": "cell timeout after 30s", "code": "command_timeout"})
    wire.will(*OPENED, Reply(200, RAN), timeout, Reply(200, RAN), CLOSED)
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "pandastack.cli", "sandbox", "repl", "0b5f"]
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=dict(os.environ)) as process:
        os.close(theirs)
        os.write(ours, b"x = 1\n\ndef f():\n  pass\n\n%time 1\n\x04")
        said = b""
        while True:
            try:
                said += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
        os.close(ours)
    assert process.returncode == 0
    codes = [json.loads(each.body)["code"] for each in wire.asked[2:5]]
    assert codes == ["x = 1", "def f():\n  pass\n", "%time 1"]
    assert b">>> " in said and b"... " in said and b"cell timeout after 30s" in said


@pytest.mark.parametrize(
    ("code", "complete"),
    [("1", True), ("if x:", False), ("if x:\n  y\n", True), ("(", False), (")", True), ("%ls", True), ("!ls", True)],
)
def test_a_statement_that_needs_no_further_line(code: str, complete: bool) -> None:
    assert is_complete(code) is complete
