"""Text that a guest chose does not control the terminal of whoever reads about it."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pandastack.cli.output import print_fields, print_table, printable, report, short
from pandastack.cli.template.progress import TerminalProgress
from pandastack.errors import BuildError
from tests.sdk.wire_server import RECORD, Reply, WireServer
from tests.support.cli import Cli

CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"  # OSC 52: what is pasted next
SHOWN = "\\x1b]52;c;ZXZpbA==\\x07"
ODD = f"a{CLIPBOARD}\r\x9b2J\u202eb"
PROCESS = {
    "id": "p1",
    "pid": 7,
    "cmd": f"echo {CLIPBOARD}",
    "status": "running",
    "running": True,
    "started_at": 1.0,
    "stdout": {"base": 0, "end": 0},
    "stderr": {"base": 0, "end": 0},
}


def harmless(text: str) -> bool:
    return all(each.isprintable() for line in text.split("\n") for each in line)


@given(st.text())
def test_whatever_the_text_is(text: str) -> None:
    assert printable(text).isprintable()
    assert short(text, 20).isprintable() and len(short(text, 20)) <= 20
    assert text.isprintable() <= (printable(text) == text)


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    report(BuildError(f"RUN failed{CLIPBOARD}\n  last{ODD}\n  line", hint=f"see {ODD}"), as_json=False)
    shown = capsys.readouterr().err
    assert harmless(shown) and shown.count(SHOWN) == 3 and len(shown.splitlines()) == 4
    report(BuildError(ODD), as_json=True)
    assert harmless(capsys.readouterr().err)


def test_tables_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME",), [(ODD,), ({"key": ODD},), ([ODD, ODD],)])
    print_fields({"one": ODD, "several": {"key": ODD}, "list": [ODD]})
    shown = capsys.readouterr().out
    assert harmless(shown) and shown.count(SHOWN) == 7


def test_the_steps_of_a_build() -> None:
    progress = TerminalProgress()
    written = io.StringIO()
    progress._console = Console(file=written, force_terminal=False)
    progress.end(f"RUN {ODD}", 1.0, ODD)
    assert harmless(written.getvalue()) and SHOWN in written.getvalue()


def test_the_commands_and_errors_of_a_sandbox(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(200, RECORD), Reply(200, {"processes": [PROCESS]}), Reply(400, {"error": ODD, "hint": ODD}))
    listed = cli("process", "list", "0b5f")
    assert harmless(listed.stdout) and SHOWN in listed.stdout
    failed = cli("sandbox", "get", "0b5f")
    assert failed.exit_code == 1 and harmless(failed.stderr) and failed.stderr.count(SHOWN) == 2
